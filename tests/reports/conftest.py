"""Verdicts with everything in them that a report has to survive."""

import pytest

from firmground.reports.findings import Target
from firmground.reports.scan import ScanReport, scan_report
from firmground.types import Evidence, Outcome, Readout, RecoveredTrigger, RecoveredVector, Severity, Verdict

HOSTILE = "</script><script>alert(1)</script>\x1b[31m\u202e[x](http://evil) {0}"


def trigger(text: str, vector: int) -> RecoveredTrigger:
    return RecoveredTrigger(text=text, token_ids=(7, 8), score=2.5, readout=Readout.CLS, vector=vector)


@pytest.fixture
def backdoored() -> Verdict:
    vectors = (
        RecoveredVector(readout=Readout.CLS, values=(1.0, 1.0, -1.0, -1.0)),
        RecoveredVector(readout=Readout.MEAN, values=(1.0, -1.0, 1.0, -1.0)),
    )
    return Verdict(
        method="sweep",
        outcome=Outcome.BACKDOORED,
        score=2.5,
        threshold=1.0,
        severity=Severity.HIGH,
        evidence=Evidence(triggers=(trigger("cf", 0), trigger(HOSTILE, 1)), vectors=vectors),
        doubts=("few texts",),
        seconds=1.5,
        settings={"words": 10, "lengths": (1, 2), "share": 0.5},
        measurements={"candidates": 30.0, "lost": float("nan")},
    )


@pytest.fixture
def clean() -> Verdict:
    return Verdict(method="sweep", outcome=Outcome.CLEAN, score=0.2, threshold=1.0, severity=Severity.NONE)


@pytest.fixture
def undecided() -> Verdict:
    return Verdict(
        method="mining",
        outcome=Outcome.INCONCLUSIVE,
        score=float("nan"),
        threshold=1.0,
        severity=Severity.NONE,
        doubts=("timed out",),
    )


@pytest.fixture
def report(backdoored: Verdict, undecided: Verdict) -> ScanReport:
    target = Target(source="models/odd [name]", weights_sha256="ab" * 32)
    return scan_report([backdoored, undecided], target=target, seconds=2.0)
