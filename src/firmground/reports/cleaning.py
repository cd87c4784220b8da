"""The output of a cleaning: the JSON object of `firmground clean --json`, the model's card, and the HTML report."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from firmground import __version__
from firmground.reports import scan as scans
from firmground.reports.details import details, numbered
from firmground.reports.findings import Model, PlainSettings, shown
from firmground.reports.html import Bar, BarsSection, Page, ScanSection, Step, TableSection, took
from firmground.reports.scan import ScanReport
from firmground.types import Interval, Outcome

if TYPE_CHECKING:
    from firmground.reports.record import Record

RATES = {
    "accuracy": "Zero-shot accuracy",
    "image_to_text_at_1": "Image to text, recall at 1",
    "image_to_text_at_5": "Image to text, recall at 5",
    "image_to_text_at_10": "Image to text, recall at 10",
    "text_to_image_at_1": "Text to image, recall at 1",
    "text_to_image_at_5": "Text to image, recall at 5",
    "text_to_image_at_10": "Text to image, recall at 10",
}


class CleanReport(Model):
    """One cleaning: what was cleaned, how, and what held-out clean pairs and a new scan say of the result.

    `before` and `after` are the rates of `task` on `held_out` pairs; `changed` is how far the weights of each part
    moved, as a share of their norm; `losses` are the means over the last steps; `left_out` says which rows were not
    used, and why.
    """

    schema_: Literal["firmground/clean/1"] = Field(default="firmground/clean/1", alias="schema")
    source: str
    revision: str | None = None
    data: str
    out: str = ""
    weights_sha256: str | None = None
    method: str
    settings: PlainSettings
    seed: int
    steps: int
    pairs: int
    held_out: int
    left_out: tuple[str, ...] = ()
    task: str
    classes: tuple[str, ...] = ()
    before: dict[str, Interval]
    after: dict[str, Interval]
    changed: dict[str, float]
    losses: dict[str, float]
    scan: ScanReport | None = None
    seconds: float

    def of_weights(self, out: str, weights_sha256: str) -> CleanReport:
        """The same report of a model that is written."""
        scan = None if self.scan is None else self.scan.of_written(out, weights_sha256)
        return self.model_copy(update={"out": out, "weights_sha256": weights_sha256, "scan": scan})


def unlike(before: CleanReport, after: CleanReport, *, exact: bool) -> tuple[str, ...]:
    """In words, where two cleanings of one encoder disagree: verdicts, and if `exact` weights, rates and scores."""
    found = list(scans.unlike_if_any(before.scan, after.scan, exact=exact))
    for name in before.after.keys() & after.after.keys() if exact else ():
        if before.after[name] != after.after[name]:
            found.append(f"{name} was {before.after[name].value} after cleaning and is now {after.after[name].value}")
    if exact and before.weights_sha256 != after.weights_sha256:
        found.append("the weights of the cleaned encoder are not those of then")
    return tuple(found)


def card(report: CleanReport) -> str:
    """The text of the cleaned model's card (Markdown)."""
    settings = ", ".join(f"{name}={value!r}" for name, value in report.settings.items())
    moved = ", ".join(f"{name} {100 * share:.2g} %" for name, share in report.changed.items())
    revision = "" if report.revision is None else f" at `{report.revision}`"
    lines = [
        f"This is `{report.source}`{revision} after cleaning by Firmground {__version__}. Cleaning lowers what a "
        "backdoor can do; it does not prove that none is left.",
        "",
        f"- Method: `{report.method}` ({settings}), seed {report.seed}",
        f"- Trained on: {report.pairs} pairs of `{report.data}`, {report.steps} steps",
        f"- Weights moved by, as a share of their norm: {moved}",
        "",
        f"Measured on {report.held_out} pairs of the same data that were held out, with 95 % confidence intervals:",
        "",
        "| | before | after |",
        "|---|---|---|",
        *(f"| {RATES[name]} | {report.before[name].percent} | {report.after[name].percent} |" for name in report.after),
        "",
        *_verdicts(report.scan),
    ]
    return "\n".join(lines)


def clean_page(report: CleanReport, record: Record | None = None) -> Page:
    """The report of one cleaning."""
    outcome = None if report.scan is None else report.scan.outcome
    moved = tuple((name, f"{100 * share:.2g} %") for name, share in report.changed.items())
    bars = tuple(
        Bar(label=RATES[name], before=report.before[name], after=report.after[name], better="high")
        for name in report.after
    )
    note = (
        f"On {report.held_out} pairs of {report.data} that the cleaning did not see. How well a backdoor still works "
        "cannot be measured without its trigger; the scan below looks for one."
    )
    scanned = () if report.scan is None else (ScanSection(scan=report.scan, heading="The cleaned encoder, scanned"),)
    return Page(
        title=f"{report.source}: cleaned",
        eyebrow="Cleaning of a dual encoder",
        tone="story" if outcome is None else outcome,
        headline=_headline(outcome),
        lead=_lead(report),
        steps=_steps(report, outcome),
        facts=(
            ("Method", report.method),
            ("Pairs", str(report.pairs)),
            ("Steps", str(report.steps)),
            ("Time", took(report.seconds)),
        ),
        sections=(
            BarsSection(
                heading="What it cost in accuracy", bars=bars, names=("before cleaning", "after cleaning"), note=note
            ),
            *scanned,
            TableSection(
                heading="How far the weights moved",
                columns=("part", "share of its norm"),
                rows=moved,
                note="A part that hardly moved is hardly cleaner.",
            ),
        ),
        details=details(
            (
                (f"Settings of {report.method}", report.settings),
                ("Losses over the last steps", report.losses),
                ("Left out", numbered(report.left_out)),
            ),
            record,
        ),
        record=record,
    )


def _headline(outcome: Outcome | None) -> str:
    return {
        None: "The encoder was cleaned, and not scanned again.",
        Outcome.CLEAN: "The encoder was cleaned, and no backdoor is found in it now.",
        Outcome.BACKDOORED: "The encoder was cleaned, and is still backdoored.",
        Outcome.INCONCLUSIVE: "The encoder was cleaned; the new scan could not decide.",
    }[outcome]


def _lead(report: CleanReport) -> str:
    name = next(iter(report.after))
    return (
        f"{report.method} trained a copy of {report.source} for {report.steps} steps on {report.pairs} clean pairs. "
        f"{RATES[name]} on held-out pairs: {report.before[name].percent} before, {report.after[name].percent} after."
    )


def _steps(report: CleanReport, outcome: Outcome | None) -> tuple[Step, ...]:
    again = Step(
        text="Clean again, harder: a larger step_size, more epochs, or another method.",
        command=f"firmground clean {quote(report.source)} --data {quote(report.data)} --out DIR --method restore",
    )
    if outcome is Outcome.BACKDOORED:
        return (Step(text="Do not ship the cleaned encoder either."), again)
    scan = Step(
        text="Scan it again, on images of your own.", command=f"firmground scan {quote(report.out)} --images DIR"
    )
    if outcome is Outcome.CLEAN:
        return (Step(text=f"Use the cleaned encoder in {report.out}, with a guard where an attack would be costly."),)
    return (scan, again)


def _verdicts(scan: ScanReport | None) -> list[str]:
    if scan is None:
        return ["The cleaned encoder was not scanned."]
    said = (
        (f"- `{finding.method}`: {finding.outcome}", f"score {shown(finding.score)}", shown(finding.threshold))
        for finding in scan.findings
    )
    told = [f"{what} ({score}, threshold {threshold})" for what, score, threshold in said]
    return [f"Scanned after cleaning: {scan.outcome}.", "", *told]
