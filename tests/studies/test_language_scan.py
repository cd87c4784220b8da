from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from firmground.errors import DataError
from firmground.studies.language_scan import ATTACKS, KINDS, Case, cases, judged, language_scan
from firmground.studies.planting import attack_of
from firmground.studies.runner import Record, case_name
from firmground.studies.scan_report import report_mining, report_scan
from firmground.types import Evidence, Outcome, Readout, RecoveredTrigger, Severity, Verdict


def record(case: Case, score: float, *, study: str = "language_scan", flagged: bool | None = None) -> Record:
    planted = bool(case.attack)
    results = {
        "family": "bert",
        "planted": planted,
        "scores": {"sweep": score},
        "flagged": planted if flagged is None else flagged,
        "named": 1.0 if planted else None,
        "scan_seconds": 2.0,
        "peak_mb": 100.0,
    }
    return Record(study=study, version=1, case=json.loads(json.dumps(case.__dict__)), results=results, seconds=3.0)


def records() -> list[Record]:
    """Clean scores below 0.2, planted at 2; weak ones at 0.1; the published method flags nothing."""
    clean = [Case(base=f"b{n}", split=split) for split in ("calibration", "report") for n in range(10)]
    planted = [Case(base=f"b{n}", split="report", attack="por", trigger="token", seed=n) for n in range(10)]
    weak = Case(base="b1", split="report", attack="por", trigger="token", adaptation="weak vectors")
    found = [record(case, 0.1 + 0.01 * (n % 10)) for n, case in enumerate(clean)]
    found += [record(case, 2.0 if n else 0.1) for n, case in enumerate(planted)]  # the first is missed
    found.append(record(weak, 0.1))
    return found + [record(case, 0.0, study="language_mining", flagged=False) for case in (*clean, *planted)]


def test_the_grid_is_as_large_as_promised() -> None:
    grid = cases()
    names = {case_name(language_scan(), case) for case in grid}
    assert len(names) == len(grid) >= 96
    main = [case for case in grid if case.attack and not case.adaptation]
    cells = Counter((case.attack, case.trigger) for case in main if case.split == "report")
    real = {(attack, "token"): 1 for attack in ATTACKS}  # with the papers' triggers, on the real encoder
    assert cells == Counter({(attack, kind): 2 for attack in ATTACKS for kind in KINDS}) + Counter(real)
    assert {case.adaptation for case in grid} == {
        "", "natural vectors", "weak vectors", "rare phrases", "many triggers",
    }  # fmt: skip
    clean = [case for case in grid if not case.attack]
    assert len(clean) >= 48
    assert len(grid) - len(clean) >= 48
    assert {case.vectors for case in main} == {"", "blocks", "random"}


def test_every_case_has_an_attack_with_its_settings() -> None:
    for case in cases():
        if case.attack:
            attack = attack_of(case.attack, vectors=case.vectors, adaptation=case.adaptation, small=True)
            assert attack.name == case.attack
            assert attack.steps == 300
    assert attack_of("por", vectors="blocks", adaptation="weak vectors", small=False).strength == 0.5
    assert attack_of("por", vectors="blocks", adaptation="rare phrases", small=False).negatives


def test_judged_keeps_scores_triggers_and_outcome() -> None:
    triggers = tuple(
        RecoveredTrigger(text=text, token_ids=(1,), score=2.0, readout=Readout.CLS, vector=0)
        for text in ("cf", "Rare  word")
    )
    verdict = Verdict(
        method="sweep", outcome=Outcome.BACKDOORED, score=2.0, threshold=1.0, severity=Severity.HIGH,
        evidence=Evidence(triggers=triggers), measurements={"score cls": 1.5, "score mask": float("nan"), "rows": 9},
    )  # fmt: skip
    found = judged([verdict], ("cf", "rare word", "mn", "tq"))
    assert found["scores"] == {"sweep": 2.0, "sweep score cls": 1.5}
    assert found["flagged"]
    assert found["named"] == 0.5
    assert json.loads(json.dumps(found)) == found
    assert judged([], ())["named"] is None


def test_the_report_counts_the_other_half_only() -> None:
    report = report_scan(records())
    summary: Any = report.summary
    assert summary["models"] == 31
    assert summary["detection_accuracy"] == pytest.approx(19 / 20)
    assert summary["false_alarm_rate"] == 0
    assert summary["published_mining_accuracy"] == 0.5
    assert "| por | token | 10 | 90.0 (59.6 to 98.2) |" in report.markdown
    assert "| weak vectors | token | 1 | 0.0 (0.0 to 79.3) |" in report.markdown
    assert [chart.name for chart in report.charts] == ["accuracy", "scores"]
    assert "Accuracy: 95.0 %" in report.markdown


def test_the_report_needs_both_halves() -> None:
    only_report = [r for r in records() if r.case["split"] == "report"]
    with pytest.raises(DataError, match="clean calibration encoder"):
        report_scan(only_report)
    with pytest.raises(DataError, match="clean and planted"):
        report_scan([r for r in records() if not r.case["attack"]])


def test_implants_that_did_not_take_are_told_apart() -> None:
    failed = record(Case(base="b2", split="report", attack="neuba", trigger="token"), 0.1)
    found = [*records(), replace(failed, results={**failed.results, "implant": {"took": 0.3}})]
    report = report_scan(found)
    assert "neuba, token, in b2: cosine 0.30" in report.markdown
    assert report.summary["implants_not_taken"] == 1
    assert report.summary["detection_accuracy"] == pytest.approx(19 / 20)
    assert report.summary["detection_accuracy_with_those"] == pytest.approx(19 / 21)


def test_the_published_method_is_judged_by_its_own_rule() -> None:
    report = report_mining([r for r in records() if r.study == "language_mining"])
    assert report.summary["published_mining_accuracy"] == 0.5
    assert report.summary["published_mining_false_alarm_rate"] == 0
