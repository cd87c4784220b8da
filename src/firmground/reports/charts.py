"""Small drawings for the report, as inline SVG: numbers in, markup out, colours from the page's own CSS variables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from markupsafe import Markup

from firmground.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVELS = 9  # colours of a heat strip, from most negative to most positive
STRIP_CELLS = 384  # a wider vector is drawn by the means of its neighbouring numbers


def score_bar(score: float | None, threshold: float | None, top: float, outcome: str) -> Markup:
    """A bar from 0 to `top` in the colour of an `Outcome`, a tick at the threshold; empty where there is no score."""
    width = 100 * _share(score, top)
    tick = 100 * _share(threshold, top)
    mark = "" if threshold is None else f'<i class="tick" style="left:{tick:.2f}%"></i>'
    return Markup(f'<span class="bar"><b class="{Outcome(outcome)}" style="width:{width:.2f}%"></b>{mark}</span>')


def rate_bar(value: float, low: float, high: float, kind: str) -> Markup:
    """A bar for a rate in [0, 1] with its confidence interval as a whisker."""
    return Markup(
        f'<span class="bar rate"><b class="{kind}" style="width:{100 * value:.2f}%"></b>'
        f'<i class="whisker" style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></i></span>'
    )


def heat_strip(values: Sequence[float | None]) -> Markup:
    """A vector as a strip of coloured cells, one for each number, blue below and red above zero."""
    cells = _binned([0.0 if value is None else value for value in values])
    largest = max((abs(cell) for cell in cells), default=0.0) or 1.0
    paths: dict[int, list[str]] = {}
    start = 0
    for index, cell in enumerate(cells):
        level = _level(cell / largest)
        if index + 1 == len(cells) or _level(cells[index + 1] / largest) != level:
            paths.setdefault(level, []).append(f"M{start} 0h{index + 1 - start}v10h-{index + 1 - start}z")
            start = index + 1
    drawn = "".join(f'<path class="h{level}" d="{"".join(parts)}"/>' for level, parts in sorted(paths.items()))
    return Markup(
        f'<svg class="strip" viewBox="0 0 {max(len(cells), 1)} 10" preserveAspectRatio="none" '
        f'shape-rendering="crispEdges" role="img" aria-label="{len(values)} numbers">{drawn}</svg>'
    )


def cosine_matrix(vectors: Sequence[Sequence[float | None]]) -> Markup:
    """The cosines between vectors of one width, as a square of coloured cells with their numbers."""
    size, cell = len(vectors), 44
    parts = []
    for row, one in enumerate(vectors):
        for column, other in enumerate(vectors):
            value = cosine(one, other)
            x, y = 26 + column * cell, 22 + row * cell
            strong = " strong" if abs(value) > 0.6 else ""
            parts.append(
                f'<rect class="h{_level(value)}" x="{x}" y="{y}" width="{cell - 2}" height="{cell - 2}" rx="5"/>'
                f'<text class="cell{strong}" x="{x + cell / 2 - 1}" y="{y + cell / 2 + 3}">{_signed(value)}</text>'
            )
    for index in range(size):
        middle = index * cell + cell / 2
        parts.append(f'<text class="axis" x="{25 + middle}" y="14">{index + 1}</text>')
        parts.append(f'<text class="axis" x="12" y="{25 + middle}">{index + 1}</text>')
    side = size * cell
    return Markup(
        f'<svg class="matrix" viewBox="0 0 {26 + side} {22 + side}" style="max-width:{26 + side}px" role="img" '
        f'aria-label="cosines between {size} vectors">{"".join(parts)}</svg>'
    )


def cosine(one: Sequence[float | None], other: Sequence[float | None]) -> float:
    """The cosine of two vectors; 0 where one of them is zero or the widths differ."""
    if len(one) != len(other):
        return 0.0
    a, b = ([value or 0.0 for value in vector] for vector in (one, other))
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def _share(value: float | None, top: float) -> float:
    return 0.0 if value is None or top <= 0 else min(max(value / top, 0.0), 1.0)


def _binned(values: Sequence[float]) -> list[float]:
    width = math.ceil(len(values) / STRIP_CELLS) or 1
    groups = [values[start : start + width] for start in range(0, len(values), width)]
    return [sum(group) / len(group) for group in groups]


def _level(share: float) -> int:
    """Which of the colours stands for a number in [-1, 1]."""
    return min(max(round((share + 1) / 2 * (LEVELS - 1)), 0), LEVELS - 1)


def _signed(value: float) -> str:
    rounded = f"{value:.2f}"
    return "0.00" if rounded == "-0.00" else rounded.replace("-", "\u2212")
