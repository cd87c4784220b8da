import json

import pytest

from firmground.reports.record import Record

from .conftest import verdict


def test_clean_is_0(run, encoder, default_scan):
    default_scan(verdict("clean"))
    result = run("scan", encoder)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "No backdoor found" in result.stderr


def test_finding_is_1_and_names_triggers(run, encoder, default_scan):
    default_scan(verdict("backdoored", 2.0, "medium"))
    result = run("scan", encoder, "--json")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert (printed["schema"], printed["outcome"]) == ("firmground/scan/1", "backdoored")
    assert printed["target"]["source"] == str(encoder)
    assert printed["findings"][0]["evidence"]["triggers"][0]["text"] == "cf"
    assert "cf" in result.stderr


@pytest.mark.parametrize(("fail_on", "code"), [("low", 1), ("medium", 1), ("high", 0)])
def test_fail_on(run, encoder, default_scan, fail_on, code):
    default_scan(verdict("backdoored", 2.0, "medium"))
    assert run("scan", encoder, "--fail-on", fail_on).exit_code == code


def test_output_format_never_changes_the_code(run, encoder, default_scan, tmp_path):
    default_scan(verdict("backdoored", 2.0, "high"))
    outputs = [
        "--json",
        "--report",
        tmp_path / "r.html",
        "--sarif",
        tmp_path / "s.json",
        "--record",
        tmp_path / "r.json",
    ]
    assert run("scan", encoder, *outputs).exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "r.json", "s.json"]
    assert json.loads((tmp_path / "s.json").read_text())["version"] == "2.1.0"
    assert "backdoored" in (tmp_path / "r.html").read_text()
    record = Record.read(tmp_path / "r.json")
    assert (record.verb, record.exit_code, record.outcome) == ("scan", 1, "backdoored")
    assert record.target.weights_sha256 is not None


def test_inconclusive_is_2(run, encoder, default_scan):
    default_scan(verdict("inconclusive", doubts=("nothing converged",)))
    result = run("scan", encoder)
    assert result.exit_code == 2
    assert "nothing converged" in result.stderr


def test_time_limit_is_inconclusive(run, encoder, default_scan):
    default_scan(verdict("clean"))
    result = run("scan", encoder, "--time-limit", 0, "--json")
    assert result.exit_code == 2
    assert "time limit" in json.loads(result.stdout)["findings"][0]["doubts"][0]


def test_interrupt_is_one_line_and_leaves_nothing(run, encoder, default_scan, tmp_path):
    default_scan(error=KeyboardInterrupt())
    result = run("scan", encoder, "--report", tmp_path / "r.html")
    assert result.exit_code == 2
    assert result.stderr == "firmground: interrupted; nothing half-written is left\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError("odd\nthing \x1b[31m"), OSError(28, "No space left"), MemoryError()])
def test_surprises_are_one_sentence(run, encoder, default_scan, error):
    default_scan(error=error)
    result = run("scan", encoder)
    assert result.exit_code == 2
    assert result.stderr.startswith("firmground: ")
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr


def test_debug_shows_where(run, encoder, default_scan):
    default_scan(error=ValueError("odd thing"))
    assert "Traceback" in run("scan", encoder, "--debug").stderr
    assert "Traceback" not in run("scan", encoder).stderr


def test_missing_model_is_2(run, tmp_path):
    result = run("scan", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "config.json" in result.stderr


def test_one_line_of_texts_is_refused(run, encoder, default_scan, tmp_path):
    default_scan(verdict("clean"))
    (tmp_path / "texts.txt").write_text("alone\n")
    assert run("scan", encoder, "--texts", tmp_path / "texts.txt").exit_code == 2


@pytest.mark.parametrize("option", ["--report", "--sarif", "--record"])
def test_unwritable_output_is_found_before_the_scan(run, encoder, default_scan, tmp_path, option):
    default_scan(error=AssertionError("the scan ran"))
    result = run("scan", encoder, option, tmp_path / "absent" / "out")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("scan",),
        ("scan", "x", "--nonsense"),
        ("scan", "x", "--fail-on", "dreadful"),
        ("scan", "x", "--method", "nonsense"),
        ("scan", "x", "--set", "threshold=1"),
        ("scan", "x", "--seed", "many"),
        ("nonsense",),
        ("implant", "por", "x"),
        ("prompt", "fit"),
    ],
)
def test_wrong_usage_is_4(run, words):
    result = run(*words)
    assert result.exit_code == 4
    assert result.stdout == ""
    assert result.stderr


def test_nothing_at_all_shows_the_help(run):
    result = run()
    assert result.exit_code == 4
    assert "Usage" in result.stdout


def test_settings_reach_the_method(run, encoder, stub_method):
    result = run("scan", encoder, "--method", "stub", "--set", "steps=5", "--set", "kind=b", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["findings"][0]["settings"] == {"steps": 5, "kind": "b"}


def test_a_bad_setting_lists_the_fields(run, encoder, stub_method):
    result = run("scan", encoder, "--method", "stub", "--set", "stepz=5")
    assert result.exit_code == 4
    assert "steps, kind" in result.stderr
    assert run("scan", encoder, "--method", "stub", "--set", "steps=few").exit_code == 4
    assert "--device" not in run("scan", encoder, "--method", "stub", "--device", "abacus").stdout
    assert run("scan", encoder, "--method", "stub", "--device", "abacus").exit_code == 4
