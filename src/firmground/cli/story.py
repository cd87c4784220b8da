"""The demo's progress: several long steps of roughly known length, with the time left in all."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(kw_only=True)
class Story:
    """A `Watch` for a run of several steps. `expected` are their titles with the seconds each takes on two cores.

    The time left in all is what is expected of the steps to come, times how much slower than expected it went so far.
    """

    watch: Callable[..., None]
    expected: dict[str, float]
    began: float = field(default_factory=time.monotonic)
    title: str = ""
    since: float = 0.0  # seconds from the beginning to that of this step

    def begin(self, title: str) -> None:
        """Starts the step of that title."""
        self.title = title
        self.since = time.monotonic() - self.began
        self(0, 1, "")

    def tell(self, line: str) -> None:
        """A line that stays."""
        typer.echo(f"{self._number()}/{len(self.expected)} {self.title}: {line}", err=True)

    def __call__(self, step: int, total: int, stage: str, **scalars: float) -> None:
        name = f"{self._number()}/{len(self.expected)} {stage or self.title}"
        self.watch(step, total, name, seconds_left_in_all=self.left())

    def left(self) -> float:
        """Seconds left in all."""
        titles = list(self.expected)
        before = sum(self.expected[title] for title in titles[: self._number() - 1])
        through, whole = before + self.expected[self.title], sum(self.expected.values())
        gone = time.monotonic() - self.began
        pace = max(self.since / before if before else 1.0, gone / through)
        return max(pace * whole - gone, 1.0)

    def _number(self) -> int:
        return list(self.expected).index(self.title) + 1
