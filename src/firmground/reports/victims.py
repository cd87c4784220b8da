"""The output of `firmground evaluate TASK --victim`: its JSON object and its HTML report."""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from firmground.data.counting import several
from firmground.reports.details import details
from firmground.reports.findings import Model
from firmground.reports.html import Bar, BarsSection, Page, Picture, PicturesSection, Section, Step, TableSection, took
from firmground.types import Interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from firmground.reports.record import Record

TITLES = {
    "miou": "mIoU",
    "base": "mIoU, base classes",
    "novel": "mIoU, novel classes",
    "pixel_accuracy": "pixels right",
    "ap": "AP",
    "ap50": "AP50",
    "base_ap50": "AP50, base classes",
    "novel_ap50": "AP50, novel classes",
    "cider": "CIDEr",
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "accuracy": "VQA accuracy",
}
HEADLINES = {"segmentation": "miou", "detection": "ap50", "captioning": "cider", "vqa": "accuracy"}


class Measured(Model):
    """A metric in [0, 1] (CIDEr up to 10) with its 95 % confidence interval; `count` says of how many samples."""

    value: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, interval: Interval) -> Measured:
        """The same as an interval."""
        return cls(value=interval.value, low=interval.low, high=interval.high, count=interval.count)

    def interval(self) -> Interval:
        """The same as an interval."""
        return Interval(value=self.value, low=self.low, high=self.high, count=self.count)

    @property
    def percent(self) -> str:
        """`61.2 (55.0 to 67.1)`, times 100 as papers print it."""
        value, low, high = (f"{100 * part:.1f}" for part in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"


class VictimReport(Model):
    """One evaluation. `drop` is 1 - attacked / clean of the task's first metric, its interval of paired replicates."""

    schema_: Literal["firmground/victim-evaluation/1"] = Field(default="firmground/victim-evaluation/1", alias="schema")
    task: str
    victim: str
    revision: str | None = None
    images_from: str
    attacked_from: str | None = None
    images: int
    seed: int
    clean: dict[str, Measured]
    attacked: dict[str, Measured] | None = None
    drop: Measured | None = None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One image of a report: pictures side by side with what the victim says under each."""

    name: str
    pictures: tuple[Picture, ...]


def title(name: str) -> str:
    """What people call a metric; that of a kind of question is named by it."""
    return TITLES.get(name, name.replace("accuracy/", "accuracy: "))


def unlike(before: VictimReport, after: VictimReport, *, exact: bool) -> tuple[str, ...]:
    """In words, where two evaluations of one victim disagree: which metrics there are, and if `exact` what they are."""
    found = []
    for side in ("clean", "attacked"):
        old, new = (getattr(report, side) or {} for report in (before, after))
        for name in sorted(old.keys() ^ new.keys()):
            found.append(f"{title(name)}, {side}, was measured only {'before' if name in old else 'now'}")
        for name in sorted(old.keys() & new.keys()) if exact else ():
            if old[name] != new[name]:
                found.append(f"{title(name)}, {side}, was {old[name].percent} and is now {new[name].percent}")
    return tuple(found)


def victim_page(report: VictimReport, shown: Sequence[Shown], record: Record | None = None) -> Page:
    """The page of one evaluation."""
    first = HEADLINES[report.task]
    sections: list[Section] = []
    if report.attacked is not None:
        kept = [name for name in report.clean if name in TITLES and name in report.attacked]
        bars = [(title(name), report.clean[name], report.attacked[name]) for name in kept if name != "cider"]
        sections.append(
            BarsSection(
                heading="What the attack does",
                bars=tuple(
                    Bar(label=label, before=clean.interval(), after=attacked.interval(), better="high")
                    for label, clean, attacked in bars
                ),
                names=("clean", "attacked"),
                harmed=True,
            )
        )
    sections += [
        PicturesSection(heading=one.name, pictures=one.pictures, row=max(2, len(one.pictures))) for one in shown
    ]
    sections.append(_table(report))
    return Page(
        title=f"{report.victim}: {report.task}",
        eyebrow=f"Evaluation of a victim: {report.task}",
        tone="story",
        headline=_headline(report, first),
        lead=(
            f"{report.victim} on {several(report.images, 'image')} of {report.images_from}"
            + (f", and on those of {report.attacked_from}, attacked." if report.attacked_from else ".")
            + " Intervals hold for 95 % of resampled sets of images."
        ),
        steps=_steps(report),
        facts=(("Images", f"{report.images:,}"), ("Time", took(report.seconds))),
        sections=tuple(sections),
        details=details((), record),
        record=record,
    )


def _headline(report: VictimReport, first: str) -> str:
    if report.attacked is None:
        return f"{title(first)} {report.clean[first].percent}."
    if report.drop is None:
        return f"{title(first)} is 0 on clean images: there is nothing to lose."
    share = round(100 * report.drop.value)
    return f"{title(first)} falls by {share} %." if share > 0 else f"{title(first)} does not fall."


def _steps(report: VictimReport) -> tuple[Step, ...]:
    if report.attacked_from is None:
        command = f"firmground perturb prm {quote(report.images_from)} --encoder MODEL --out attacked"
        return (
            Step(text="Make adversarial images on an encoder, and evaluate again with --attacked.", command=command),
        )
    command = "firmground harden ENCODER --method fare --images DIR --out DIR"
    return (Step(text="Harden the encoder that the victim is built on, and measure again.", command=command),)


def _table(report: VictimReport) -> TableSection:
    attacked: Mapping[str, Measured] = report.attacked or {}
    columns = ("metric, times 100", "clean") + (("attacked",) if attacked else ())
    rows = tuple(
        (title(name), clean.percent, *((attacked[name].percent,) if name in attacked else ()))
        for name, clean in report.clean.items()
    )
    return TableSection(heading="All metrics", columns=columns, rows=rows)
