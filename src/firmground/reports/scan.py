"""The scan output: the one JSON object that `firmground scan --json` prints, schema `firmground/scan/1`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError

from firmground.errors import DataError
from firmground.reports.findings import Finding, Model, Target
from firmground.types import Outcome, Severity, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

SEVERITIES = (Severity.NONE, Severity.LOW, Severity.MEDIUM, Severity.HIGH)


class ScanReport(Model):
    """The whole scan of one target."""

    schema_: Literal["firmground/scan/1"] = Field(default="firmground/scan/1", alias="schema")
    target: Target
    kind: str = "language-encoder"
    outcome: Outcome
    findings: tuple[Finding, ...]
    seconds: float

    @classmethod
    def read(cls, path: str | Path) -> ScanReport:
        """Reads what `firmground scan --json` printed; `DataError` for anything else."""
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise DataError(f"cannot read the scan {path}: {error.strerror or error}") from error
        except ValidationError as error:
            place = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the whole file"
            raise DataError(
                f"{path} is not the output of 'firmground scan --json' ({place}: {error.errors()[0]['msg']})"
            ) from error

    def fails(self, severity: Severity) -> bool:
        """Whether any finding is at or above `severity`."""
        floor = max(SEVERITIES.index(severity), 1)
        return any(
            finding.outcome is Outcome.BACKDOORED and SEVERITIES.index(finding.severity) >= floor
            for finding in self.findings
        )

    def exit_code(self, fail_on: Severity) -> int:
        """1 for a finding at or above `fail_on`, else 2 where any method is inconclusive or none ran, else 0."""
        if self.fails(fail_on):
            return 1
        undecided = not self.findings or any(f.outcome is Outcome.INCONCLUSIVE for f in self.findings)
        return 2 if undecided else 0

    def of_written(self, out: str, weights_sha256: str) -> ScanReport:
        """The same scan, of what was scanned before it was written to `out`."""
        target = self.target.model_copy(update={"source": out, "weights_sha256": weights_sha256})
        return self.model_copy(update={"target": target})


def scan_report(
    verdicts: Sequence[Verdict], *, target: Target, seconds: float, kind: str = "language-encoder"
) -> ScanReport:
    """Puts the verdicts on one target together.

    Backdoored if any verdict is, else inconclusive if any is or there is none, else clean.
    """
    outcomes = {verdict.outcome for verdict in verdicts} or {Outcome.INCONCLUSIVE}
    order = (Outcome.BACKDOORED, Outcome.INCONCLUSIVE, Outcome.CLEAN)
    return ScanReport(
        target=target,
        kind=kind,
        outcome=next(outcome for outcome in order if outcome in outcomes),
        findings=tuple(Finding.of(verdict) for verdict in verdicts),
        seconds=seconds,
    )


def unlike(before: ScanReport, after: ScanReport, *, exact: bool) -> tuple[str, ...]:
    """In words, where two scans of one target disagree: outcomes, and if `exact` scores."""
    found = []
    if before.outcome != after.outcome:
        found.append(f"the outcome was {before.outcome} and is now {after.outcome}")
    old, new = ({finding.method: finding for finding in scan.findings} for scan in (before, after))
    for method in sorted(old.keys() ^ new.keys()):
        found.append(f"{method} ran only {'before' if method in old else 'now'}")
    for method in sorted(old.keys() & new.keys()):
        was, now_is = old[method], new[method]
        if was.outcome != now_is.outcome:
            found.append(f"{method} said {was.outcome} and now says {now_is.outcome}")
        if exact and was.score != now_is.score:
            found.append(f"the score of {method} was {was.score} and is now {now_is.score}")
    return tuple(found)


def unlike_if_any(before: ScanReport | None, after: ScanReport | None, *, exact: bool) -> tuple[str, ...]:
    """The same of scans that may not have been made."""
    if before is None or after is None:
        return () if before is after else (f"a scan was made only {'now' if before is None else 'before'}",)
    return unlike(before, after, exact=exact)
