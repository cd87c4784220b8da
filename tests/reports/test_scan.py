import json
import math

import pytest

from firmground.errors import DataError
from firmground.reports.findings import Finding, Target
from firmground.reports.scan import ScanReport, scan_report
from firmground.types import Severity


def test_json_has_the_documented_shape(report):
    printed = json.loads(report.to_json())
    assert printed["schema"] == "firmground/scan/1"
    assert {"schema", "target", "kind", "outcome", "findings", "seconds"} <= printed.keys()
    assert printed["kind"] == "language-encoder"
    keys = {"method", "outcome", "score", "threshold", "severity", "evidence", "doubts", "seconds"}
    for finding in printed["findings"]:
        assert keys <= finding.keys()
        assert {"triggers", "vectors"} <= finding["evidence"].keys()
    assert printed["findings"][0]["evidence"]["triggers"][0] == {
        "text": "cf",
        "token_ids": [7, 8],
        "score": 2.5,
        "readout": "cls",
        "vector": 0,
    }


def test_json_is_strict_and_cannot_steer_a_terminal(report):
    text = report.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert text.isascii()
    assert "\x1b" not in text


def test_json_round_trip(report, tmp_path):
    path = tmp_path / "scan.json"
    path.write_text(report.to_json())
    assert ScanReport.read(path) == report


def test_verdict_comes_back(backdoored):
    again = Finding.of(backdoored).verdict()
    assert again.evidence == backdoored.evidence
    assert (again.outcome, again.score, again.doubts) == (backdoored.outcome, 2.5, ("few texts",))
    assert math.isnan(again.measurements["lost"])


def test_overall_outcome_and_exit_code(backdoored, clean, undecided):
    def code(*verdicts, fail_on=Severity.LOW):
        scan = scan_report(verdicts, target=Target(source="x"), seconds=0)
        return str(scan.outcome), scan.exit_code(fail_on)

    assert code(clean) == ("clean", 0)
    assert code(clean, clean) == ("clean", 0)
    assert code(clean, undecided) == ("inconclusive", 2)
    assert code() == ("inconclusive", 2)
    assert code(undecided, backdoored) == ("backdoored", 1)


def test_fail_on_lets_lesser_findings_pass(backdoored, undecided):
    from dataclasses import replace

    low = scan_report([replace(backdoored, severity=Severity.LOW)], target=Target(source="x"), seconds=0)
    assert [low.exit_code(severity) for severity in (Severity.LOW, Severity.MEDIUM, Severity.HIGH)] == [1, 0, 0]
    both = scan_report([replace(backdoored, severity=Severity.LOW), undecided], target=Target(source="x"), seconds=0)
    assert both.exit_code(Severity.HIGH) == 2


@pytest.mark.parametrize("content", ["", "{}", '{"schema": "firmground/scan/9"}', "<html>"])
def test_a_file_that_is_no_scan_is_refused_with_advice(tmp_path, content):
    path = tmp_path / "scan.json"
    path.write_text(content)
    with pytest.raises(DataError, match="scan --json"):
        ScanReport.read(path)


def test_pictures_survive_json_and_older_output_has_none(clean):
    from dataclasses import replace

    from firmground.types import Evidence, RecoveredPicture

    picture = RecoveredPicture(png="iVBORw0KGgo=", caption="all images to one", score=1.5, area=0.03)
    found = Finding.of(replace(clean, evidence=Evidence(pictures=(picture,))))
    again = Finding.model_validate_json(found.to_json())
    assert again.verdict().evidence.pictures == (picture,)
    older = json.loads(found.to_json())
    del older["evidence"]["pictures"]
    assert Finding.model_validate(older).verdict().evidence == Evidence()


@pytest.mark.parametrize("png", ["", 'x"onerror=', "<svg>", "iVBO\n"])
def test_a_picture_that_is_no_base64_is_refused(png):
    from firmground.reports.findings import FoundPicture

    with pytest.raises(ValueError, match="png"):
        FoundPicture(png=png, caption="", score=0.0, area=0.0)
