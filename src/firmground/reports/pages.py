"""What a scan says to a person: the headline, what to do now, and the sections of its report."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from firmground.reports import prompt_scans
from firmground.reports.details import details
from firmground.reports.html import Page, ScanSection, Step, took
from firmground.reports.scan import SEVERITIES
from firmground.types import Outcome

if TYPE_CHECKING:
    from firmground.reports.html import Section
    from firmground.reports.record import Record
    from firmground.reports.scan import ScanReport

HEADLINES = {
    Outcome.CLEAN: "No backdoor found.",
    Outcome.BACKDOORED: "This encoder is backdoored.",
    Outcome.INCONCLUSIVE: "The scan could not decide.",
}


def scan_page(scan: ScanReport, record: Record | None = None, shown: tuple[Section, ...] = ()) -> Page:
    """The report of one scan; `shown` are further sections, such as pictures of what was scanned."""
    return Page(
        title=f"{scan.target.source}: {scan.outcome}",
        eyebrow=f"Scan of a {scan.kind.replace('-', ' ')}",
        tone=scan.outcome,
        headline=headline(scan),
        lead=lead(scan),
        steps=steps(scan),
        facts=facts(scan),
        sections=(ScanSection(scan=scan), *shown),
        details=details(((f"Settings of {one.method}", one.settings) for one in scan.findings), record),
        record=record,
    )


def headline(scan: ScanReport) -> str:
    """The outcome in a few words."""
    return (prompt_scans.HEADLINES if scan.kind == prompt_scans.KIND else HEADLINES)[scan.outcome]


def lead(scan: ScanReport) -> str:
    """The outcome in two sentences."""
    if scan.kind == prompt_scans.KIND:
        return prompt_scans.prompt_lead(scan)
    triggers, vectors, methods = _counts(scan)
    if scan.outcome is Outcome.BACKDOORED and triggers:
        forced = _many(vectors, "fixed output vector").lower()
        return (
            f"{_many(triggers, 'trigger')} found that make the encoder forget what it reads and give {forced} instead. "
            "Whoever knows such a trigger steers every model that is built on this encoder."
        )
    pictures = sum(len(finding.evidence.pictures) for finding in scan.findings)
    if scan.outcome is Outcome.BACKDOORED and pictures:
        return (
            f"{_many(pictures, 'pattern')} found that make the encoder forget the image under it. Whoever knows such a "
            "pattern steers every model that is built on this encoder."
        )
    if scan.outcome is Outcome.BACKDOORED:
        return (
            "The encoder behaves as only a backdoored one does, though no trigger could be spelled out. "
            "Whoever knows the trigger steers every model that is built on this encoder."
        )
    if scan.outcome is Outcome.CLEAN:
        what = "an image" if scan.kind == "dual-encoder" else "a text"
        return (
            f"{_many(methods, 'method')} looked for inputs that make the encoder forget the rest of {what}, and found "
            "none. That is strong evidence against the attacks searched for, and no proof that nothing else is hidden."
        )
    return "No method reached a conclusion that it stands by. The doubts below say why; treat the encoder as untested."


def steps(scan: ScanReport) -> tuple[Step, ...]:
    """What to do now."""
    if scan.kind == prompt_scans.KIND:
        return prompt_scans.prompt_steps(scan)
    source, dual = quote(scan.target.source), scan.kind == "dual-encoder"
    if scan.outcome is Outcome.BACKDOORED:
        advice = (
            Step(text="Do not ship this encoder, and tell whoever relies on models built on it."),
            Step(
                text="Get the weights from the original publisher and scan those.", command="firmground scan ORIGINAL"
            ),
        )
        guard = Step(
            text="If this encoder must be used, put a guard in front of it, fitted on this scan.",
            command=f"firmground guard fit {source} --adapter DIR --scan scan.json --out guard",
        )
        clean = Step(
            text="If this encoder must be used, clean it on pairs that you trust, and scan what comes out.",
            command=f"firmground clean {source} --data PAIRS --out DIR --report clean.html",
        )
        watch = Step(
            text="Or put a guard in front of it, fitted on clean images.",
            command=f"firmground guard fit {source} --data PAIRS --classes FILE --out guard.safetensors",
        )
        return (*advice, clean, watch) if dual else (*advice, guard)
    if scan.outcome is Outcome.CLEAN:
        pin = f"sha256 {scan.target.weights_sha256}" if scan.target.weights_sha256 else "the revision you scanned"
        return (
            Step(text=f"Go ahead, and pin exactly these weights: {pin}."),
            Step(
                text="Archive this report: the record inside it repeats the run.",
                command="firmground rerun REPORT.html",
            ),
        )
    if dual:
        return (
            Step(text="Read the doubts below; more clean images, of more kinds, often settle them."),
            Step(text="Scan again.", command=f"firmground scan {source} --images FOLDER"),
        )
    return (
        Step(text="Read the doubts below; more or longer clean texts often settle them."),
        Step(text="Scan again.", command=f"firmground scan {source} --texts texts.txt"),
    )


def facts(scan: ScanReport) -> tuple[tuple[str, str], ...]:
    """The figures under the headline."""
    triggers, vectors, methods = _counts(scan)
    found = (("Triggers", str(triggers)), ("Fixed vectors", str(vectors))) if triggers or vectors else ()
    severity = max((finding.severity for finding in scan.findings), key=SEVERITIES.index, default=None)
    shown = (("Severity", severity.value),) if severity is not None and scan.outcome is Outcome.BACKDOORED else ()
    return (*shown, *found, ("Methods", str(methods)), ("Time", took(scan.seconds)))


def _counts(scan: ScanReport) -> tuple[int, int, int]:
    """Distinct triggers, vectors, and methods."""
    triggers = {trigger.text for finding in scan.findings for trigger in finding.evidence.triggers}
    vectors = max((len(finding.evidence.vectors) for finding in scan.findings), default=0)
    return len(triggers), vectors, len(scan.findings)


def _many(count: int, noun: str) -> str:
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve")
    return f"{words[count] if count < len(words) else count} {noun}{'' if count == 1 else 's'}"
