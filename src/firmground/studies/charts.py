"""Plots of a study: bars with their intervals, scores as dots with the threshold between them, and curves."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firmground.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from firmground.types import Interval

COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A plot named `name`: `bars` (label to interval), `dots` (label to scores) or `curves` (label to points).

    `line` marks a threshold across it, `axis` says what is measured; `across` says it of the other axis of curves.
    """

    name: str
    title: str
    axis: str
    bars: Mapping[str, Interval] | None = None
    dots: Mapping[str, Sequence[float]] | None = None
    curves: Mapping[str, Sequence[tuple[float, float]]] | None = None
    across: str = ""
    line: float | None = None


def draw(chart: Chart, form: str) -> bytes:
    """The chart as the bytes of a PNG or SVG file; the same chart gives the same bytes."""
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "study") from None
    labels = list(chart.bars or chart.dots or ())
    height = 4.0 if chart.curves else 1.2 + 0.32 * len(labels)
    with mpl.rc_context({"svg.hashsalt": "firmground", "font.size": 9, "axes.spines.right": False}):
        figure = Figure(figsize=(7.0, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        if chart.curves:
            _curves(axes, chart.curves, chart.across)
        else:
            _bars(axes, chart.bars) if chart.bars else _dots(axes, chart.dots or {})
            axes.set_yticks(range(len(labels)), labels)
            axes.invert_yaxis()
        axes.set_xlabel(chart.axis)
        axes.set_title(chart.title, loc="left")
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        if chart.line is not None:
            axes.axvline(chart.line, color="#9b2c2c", linestyle="--", linewidth=1)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()


def _bars(axes: Any, bars: Mapping[str, Interval]) -> None:
    values = [interval.value for interval in bars.values()]
    spread = [
        [interval.value - interval.low for interval in bars.values()],
        [interval.high - interval.value for interval in bars.values()],
    ]
    axes.barh(range(len(values)), values, xerr=spread, color=COLOURS[0], ecolor="#444444", capsize=2, height=0.6)


def _dots(axes: Any, dots: Mapping[str, Sequence[float]]) -> None:
    for row, scores in enumerate(dots.values()):
        steps = max(1, len(scores) - 1)
        heights = [row + 0.5 * (i / steps - 0.5) for i in range(len(scores))]
        axes.scatter(scores, heights, s=14, color=COLOURS[row % len(COLOURS)], alpha=0.75, linewidths=0)


def _curves(axes: Any, curves: Mapping[str, Sequence[tuple[float, float]]], across: str) -> None:
    for number, (label, points) in enumerate(curves.items()):
        x, y = [a for a, _ in points], [b for _, b in points]
        axes.plot(x, y, "-o", markersize=4, linewidth=1, color=f"C{number}", label=label)
    axes.set_ylabel(across)
    axes.legend(frameon=False)
