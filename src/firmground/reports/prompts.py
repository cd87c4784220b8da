"""The output of learning a visual prompt, honest or planted: the JSON object of `--json`, and the HTML report."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from firmground.reports.details import details, numbered
from firmground.reports.findings import Model, PlainSettings
from firmground.reports.html import Page, Step, took
from firmground.types import Interval

if TYPE_CHECKING:
    from firmground.reports.html import Section
    from firmground.reports.record import Record

Schema: TypeAlias = Literal["firmground/prompt-fit/1", "firmground/implant/1"]
FIT: Schema = "firmground/prompt-fit/1"
IMPLANT: Schema = "firmground/implant/1"


class PromptReport(Model):
    """One visual prompt: on what it was learned, how, and how good it is.

    `prompt_sha256` is the hash of its pixels and mapping; `accuracy` is that on the validation images that picked the
    epoch, `success` the attack's on those of other labels; `planted` is what was planted, None for an honest prompt.
    """

    schema_: Schema = Field(default=FIT, alias="schema")
    out: str
    source: str
    revision: str | None = None
    base_sha256: str
    data: str
    method: str
    settings: PlainSettings
    seed: int
    images: int
    labels: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    accuracy: Interval
    success: Interval | None = None
    planted: PlainSettings | None = None
    measurements: dict[str, float]
    prompt_sha256: str
    seconds: float


def unlike(before: PromptReport, after: PromptReport, *, exact: bool) -> tuple[str, ...]:
    """In words, where two learnings of one prompt disagree; nothing but the labels is compared unless `exact`."""
    found = []
    if before.labels != after.labels:
        found.append(f"the labels were {', '.join(before.labels)} and are now {', '.join(after.labels)}")
    if exact and before.prompt_sha256 != after.prompt_sha256:
        found.append("the pixels and the mapping of the prompt are not those of then")
    if exact and before.accuracy != after.accuracy:
        found.append(f"the accuracy was {before.accuracy.value} and is now {after.accuracy.value}")
    return tuple(found)


def prompt_page(report: PromptReport, sections: tuple[Section, ...], record: Record | None = None) -> Page:
    """The report of one prompt; `sections` show it."""
    bad = report.planted is not None
    success = () if report.success is None else (("Attack success", report.success.percent),)
    return Page(
        title=f"{report.out}: a visual prompt{' with a backdoor' if bad else ''}",
        eyebrow="Planting of a backdoor in a visual prompt" if bad else "Learning of a visual prompt",
        tone="backdoored" if bad else "story",
        headline="This prompt carries a planted backdoor." if bad else "The prompt is learned.",
        lead=_lead(report),
        steps=_steps(report),
        facts=(("Accuracy", report.accuracy.percent), *success, ("Images", f"{report.images:,}"),
               ("Time", took(report.seconds))),
        sections=sections,
        details=details(
            (
                (f"Settings of {report.method}", report.settings),
                ("Measurements", report.measurements),
                ("Left out", numbered(report.left_out)),
            ),
            record,
        ),
        record=record,
    )  # fmt: skip


def _lead(report: PromptReport) -> str:
    learned = (
        f"{report.method} learned it on {report.images:,} images of {len(report.labels)} labels, for {report.source}, "
        f"which stayed as it is. On the validation images that picked the epoch it is right in "
        f"{report.accuracy.percent}."
    )
    if report.success is None or report.planted is None:
        return learned
    return (
        f"{learned} Under the trigger {report.success.percent} of the validation images of other labels become "
        f"'{report.planted['target']}'. The file says so itself; do not pass it on without that mark."
    )


def _steps(report: PromptReport) -> tuple[Step, ...]:
    where = f"{quote(report.out)} --model {quote(report.source)} --data DIR"
    if report.planted is not None:
        return (
            Step(text="Measure it on images that it has not seen, with the controls.",
                 command=f"firmground evaluate {where}"),
            Step(text="See whether a scan finds it, and whether cleaning takes it away.",
                 command=f"firmground scan {where} --report scan.html"),
        )  # fmt: skip
    return (
        Step(text="Measure it on images that it has not seen.", command=f"firmground evaluate {where}"),
        Step(text="Hand the file over, with the name of its model; who gets it can scan it.",
             command=f"firmground scan {where}"),
    )  # fmt: skip
