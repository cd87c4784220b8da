"""The HTML report: one self-contained file with nothing to fetch, safe against what a hostile model names a trigger.

Jinja2 escapes every value. The only markup that goes in unescaped is drawn in `charts` from numbers; the record is
embedded as JSON with `<`, `>` and `&` escaped.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import jinja2

from firmground import __version__
from firmground.reports import charts
from firmground.reports.findings import Model
from firmground.reports.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from firmground.reports.scan import ScanReport
    from firmground.types import Interval


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something to do now, in plain words, with the command that does it."""

    text: str
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class ScanSection:
    """Everything one scan found."""

    kind: ClassVar[str] = "scan"
    scan: ScanReport
    heading: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One rate before and after, each with its confidence interval; `better` is which way is good."""

    label: str
    before: Interval
    after: Interval
    better: str = "low"


@dataclass(frozen=True, kw_only=True)
class BarsSection:
    """Rates before and after something, a guard for instance; `names` are what the two bars are called.

    `harmed` says that what came between them was an attack: then the first bars have the colour of what is good.
    """

    kind: ClassVar[str] = "bars"
    heading: str
    bars: tuple[Bar, ...]
    names: tuple[str, str] = ("without the guard", "with the guard")
    note: str = ""
    harmed: bool = False


@dataclass(frozen=True, kw_only=True)
class TableSection:
    """A table; numbers are right-aligned."""

    kind: ClassVar[str] = "table"
    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int, ...], ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG image with a caption."""

    png: bytes
    caption: str

    @property
    def uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class PicturesSection:
    """Pictures side by side; `small` ones many in a row, `crisp` ones pixel by pixel, chequered where transparent.

    `row` is how many belong together, in a row of their own, one alone being wide; 0 for as many as there is room for.
    """

    kind: ClassVar[str] = "pictures"
    heading: str
    pictures: tuple[Picture, ...]
    note: str = ""
    small: bool = False
    crisp: bool = False
    row: int = 0


Section: TypeAlias = ScanSection | BarsSection | TableSection | PicturesSection


@dataclass(frozen=True, kw_only=True)
class Page:
    """A report. `tone` is an outcome (`clean`, `backdoored`, `inconclusive`) or `story`; it picks colour and sign.

    `headline` and `lead` say in plain words what was found, `steps` what to do now, `facts` the figures under it,
    `details` what made it (settings and versions, folded away), `record` is embedded as JSON.
    """

    title: str
    eyebrow: str
    tone: str
    headline: str
    lead: str
    steps: tuple[Step, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    sections: tuple[Section, ...] = ()
    details: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    record: Model | None = None


def html(page: Page) -> str:
    """The whole report as one HTML document."""
    record = page.record.model_dump(mode="json") if page.record is not None else None
    return _environment().get_template("report.html.j2").render(page=page, record=record, version=__version__)


@cache
def _environment() -> jinja2.Environment:
    folder = resources.files("firmground.reports") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(visible=visible, percent=_percent, figure=_figure, took=took)
    environment.globals.update(charts=charts, top=_top)
    return environment


def took(seconds: float) -> str:
    """A duration as people say it: `0.4 s`, `48 s`, `2 min 5 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _figure(value: Any) -> str:
    """A number for people; three digits are enough to judge by."""
    if value is None:
        return "\u2013"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _top(finding: Any) -> float:
    """Where the bars of one finding end: a little above the largest score and the threshold."""
    scores = [finding.score, finding.threshold, *(trigger.score for trigger in finding.evidence.triggers)]
    return 1.06 * max((score for score in scores if score is not None and score > 0), default=1.0)
