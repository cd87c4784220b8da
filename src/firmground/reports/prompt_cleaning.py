"""The output of cleaning a visual prompt: the JSON object of `firmground clean PROMPT --json`, and the HTML report."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from firmground.reports import scan as scans
from firmground.reports.details import details, numbered
from firmground.reports.findings import Model, PlainSettings
from firmground.reports.html import Bar, BarsSection, Page, ScanSection, Step, took
from firmground.reports.scan import ScanReport
from firmground.types import Interval, Outcome

if TYPE_CHECKING:
    from firmground.reports.html import Section
    from firmground.reports.record import Record

SCHEMA = "firmground/prompt-clean/1"
HEADLINES = {
    None: "The prompt was cleaned, and not scanned again.",
    Outcome.CLEAN: "The prompt was cleaned, and no backdoor is found in it now.",
    Outcome.BACKDOORED: "The prompt was cleaned, and is still backdoored.",
    Outcome.INCONCLUSIVE: "The prompt was cleaned; the new scan could not decide.",
}


class PromptCleanReport(Model):
    """One cleaning of a visual prompt.

    `before` and `after` are clean accuracies on `held_out` images, which the cleaning did not see; `moved` is the mean
    change of a pixel, in units of [0, 1]; `scan` is that of the cleaned prompt.
    """

    schema_: Literal["firmground/prompt-clean/1"] = Field(default="firmground/prompt-clean/1", alias="schema")
    source: str
    base: str
    revision: str | None = None
    data: str
    out: str = ""
    prompt_sha256: str
    method: str
    settings: PlainSettings
    seed: int
    images: int
    held_out: int
    left_out: tuple[str, ...] = ()
    labels: tuple[str, ...]
    before: Interval
    after: Interval
    moved: float
    scan: ScanReport | None = None
    seconds: float

    def written(self, out: str, file_sha256: str) -> PromptCleanReport:
        """The same report of a prompt that is written."""
        scan = None if self.scan is None else self.scan.of_written(out, file_sha256)
        return self.model_copy(update={"out": out, "scan": scan})


def unlike(before: PromptCleanReport, after: PromptCleanReport, *, exact: bool) -> tuple[str, ...]:
    """In words, where two cleanings of one prompt disagree: verdicts, and if `exact` pixels, rates and scores."""
    found = list(scans.unlike_if_any(before.scan, after.scan, exact=exact))
    if exact and before.after != after.after:
        found.append(f"the accuracy was {before.after.value} after cleaning and is now {after.after.value}")
    if exact and before.prompt_sha256 != after.prompt_sha256:
        found.append("the pixels and the mapping of the cleaned prompt are not those of then")
    return tuple(found)


def prompt_clean_page(report: PromptCleanReport, shown: tuple[Section, ...], record: Record | None = None) -> Page:
    """The report of one cleaning; `shown` are sections that show the prompt before and after it."""
    outcome = None if report.scan is None else report.scan.outcome
    bar = Bar(label="Clean accuracy", before=report.before, after=report.after, better="high")
    scanned = () if report.scan is None else (ScanSection(scan=report.scan, heading="The cleaned prompt, scanned"),)
    note = (
        f"On {report.held_out} images of {report.data} that the cleaning did not see. How well a backdoor still works "
        "cannot be measured without its trigger."
    )
    return Page(
        title=f"{report.source}: cleaned",
        eyebrow="Cleaning of a visual prompt",
        tone="story" if outcome is None else outcome,
        headline=HEADLINES[outcome],
        lead=(
            f"{report.method} changed {report.source} on {report.images} clean images; a pixel moved by "
            f"{report.moved:.3f} in the mean. Clean accuracy on held-out images: {report.before.percent} before, "
            f"{report.after.percent} after."
        ),
        steps=_steps(report, outcome),
        facts=(("Method", report.method), ("Images", str(report.images)), ("Time", took(report.seconds))),
        sections=(
            BarsSection(heading="What it cost in accuracy", bars=(bar,), names=("before cleaning", "after cleaning"),
                        note=note),
            *shown,
            *scanned,
        ),
        details=details(
            ((f"Settings of {report.method}", report.settings), ("Left out", numbered(report.left_out))), record
        ),
        record=record,
    )  # fmt: skip


def _steps(report: PromptCleanReport, outcome: Outcome | None) -> tuple[Step, ...]:
    own = Step(
        text="Learn a prompt of your own: with a few hundred labelled images it takes minutes.",
        command=f"firmground prompt fit visual-prompting {quote(report.base)} --data DIR --out own.safetensors",
    )
    if outcome is Outcome.BACKDOORED:
        return (Step(text="Do not use the cleaned prompt either."), own)
    if outcome is Outcome.CLEAN:
        return (
            Step(text=f"Use the cleaned prompt in {report.out}; cleaning does not prove that no backdoor is left."),
            own,
        )
    scan = f"firmground scan {quote(report.out)} --model {quote(report.base)} --data DIR"
    return (Step(text="Scan it, on images of your own.", command=scan), own)
