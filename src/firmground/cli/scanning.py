"""One scan from its options to its record; `scan` and `rerun` both come through here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firmground.cli.catalogue import family, method
from firmground.cli.options import pick_device
from firmground.cli.progress import TimeUp, limited
from firmground.cli.settings import build
from firmground.cli.subjects import FAMILY, check_options, kind_of, subject
from firmground.errors import UsageError
from firmground.reports import record as records
from firmground.reports.pages import scan_page
from firmground.reports.record import Record
from firmground.reports.scan import ScanReport, scan_report
from firmground.rng import stream
from firmground.types import Outcome, Severity, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.cli.subjects import Subject
    from firmground.reports.html import Page, Section
    from firmground.types import Watch


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """What `firmground scan` was asked for, in plain JSON types: a record stores it, `rerun` starts from it."""

    source: str
    revision: str | None = None
    adapter: str | None = None
    texts: str | None = None
    methods: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    seed: int = 0
    device: str = "auto"
    time_limit: float | None = None
    fail_on: str = "low"
    images: str | None = None
    classes: str | None = None
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """A scan with its record; `shown` are sections that show what was scanned."""

    report: ScanReport
    record: Record
    shown: tuple[Section, ...] = ()

    def page(self) -> Page:
        """The HTML report."""
        return scan_page(self.report, self.record, self.shown)


def run_scan(options: ScanOptions, watch: Watch) -> Scanned:
    """Scans what the options name. Raises `FirmgroundError` where that cannot be loaded or read."""
    kind = kind_of(options.source, options.revision)
    check_options(options, kind)
    scans = FAMILY[kind]
    chosen = build([method(scans, name) for name in options.methods], options.settings) if options.methods else ()
    if options.settings and not options.methods:
        names = ", ".join(candidate.name for candidate in family(scans))
        raise UsageError(f"--set needs --method, to say whose setting it is; methods: {names}")
    device = pick_device(options.device)
    started, since = records.now(), time.perf_counter()
    found = subject(options, device, kind, watch)
    verdicts = _judge(chosen, found, options, watch)
    report = scan_report(verdicts, target=found.target, seconds=time.perf_counter() - since, kind=found.kind)
    return Scanned(report=report, record=_record(options, report, started, str(device)), shown=found.shown)


def _judge(chosen: Sequence[Any], target: Subject, options: ScanOptions, watch: Watch) -> list[Verdict]:
    """The verdicts; where the time runs out, those that were reached and one more that says so."""
    verdicts: list[Verdict] = []
    watching = limited(watch, options.time_limit)
    since = time.perf_counter()
    try:
        if not chosen:
            return list(target.default(target.encoder, target.clean, rng=stream(options.seed, "scan"), watch=watching))
        for scan in chosen:
            rng = stream(options.seed, "scan", scan.name)
            verdicts.append(scan.scan(target.encoder, target.clean, rng=rng, watch=watching))
    except TimeUp:
        name = chosen[len(verdicts)].name if chosen else "default"
        verdicts.append(_out_of_time(name, options.time_limit or 0.0, time.perf_counter() - since))
    return verdicts


def _out_of_time(name: str, limit: float, seconds: float) -> Verdict:
    return Verdict(
        method=name,
        outcome=Outcome.INCONCLUSIVE,
        score=float("nan"),
        threshold=float("nan"),
        severity=Severity.NONE,
        doubts=(f"the time limit of {limit:g} s was reached before it had finished",),
        seconds=seconds,
    )


def _record(options: ScanOptions, report: ScanReport, started: str, device: str) -> Record:
    prompt = options.source if options.model is not None else None
    return Record.of_run(
        "scan",
        options,
        report,
        methods={finding.method: finding.settings for finding in report.findings},
        device=device,
        target=report.target,
        data=records.hashed(prompt, options.texts, options.classes, options.images),
        outcome=report.outcome,
        exit_code=report.exit_code(Severity(options.fail_on)),
        started=started,
    )
