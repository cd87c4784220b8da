"""The bar with the time left, on stderr; in a log, where no bar can move, a line now and then."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Watching = Callable[..., None]

EVERY = 10.0  # seconds between lines where stderr is no terminal
SETTLED = 1.0  # seconds into a stage before which a guess of the time left is worth nothing


class TimeUp(Exception):  # noqa: N818 - no error: the caller asked for it
    """The time limit has passed."""


@contextmanager
def progress() -> Iterator[Watching]:
    """Gives a `Watch` that shows how far the computation has come."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=32),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("left  {task.fields[scalars]}", style="dim"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield Bar(bars)


class Bar:
    """A `Watch` that moves a bar of rich's, one bar a stage."""

    def __init__(self, bars: Any) -> None:
        self.bars = bars
        self.stage = ""
        self.task: Any = None

    def __call__(self, step: int, total: int, stage: str, **scalars: float) -> None:
        from rich.markup import escape

        if stage != self.stage:
            if self.task is not None:
                self.bars.remove_task(self.task)
            self.task = self.bars.add_task(escape(stage), total=total, scalars="")
            self.stage = stage
        self.bars.update(self.task, completed=step, total=total, scalars=_scalars(scalars))


class Lines:
    """A `Watch` that writes a line at most every ten seconds."""

    def __init__(self) -> None:
        self.stage = ""
        self.began = self.told = time.monotonic()
        self.first = 0

    def __call__(self, step: int, total: int, stage: str, **scalars: float) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.began, self.first = stage, now, step  # a run that goes on does not begin at 0
        if now - self.told < EVERY or now - self.began < SETTLED or not self.first < step <= total:
            return
        self.told = now
        left = (now - self.began) * (total - step) / (step - self.first)
        typer.echo(f"{stage}: {100 * step // total} %, {left:.0f} s left  {_scalars(scalars)}".rstrip(), err=True)


def limited(watch: Watching, seconds: float | None) -> Watching:
    """The same watch, which raises `TimeUp` once `seconds` have passed since this call."""
    if seconds is None:
        return watch
    end = time.monotonic() + seconds

    def limiting(step: int, total: int, stage: str, **scalars: float) -> None:
        watch(step, total, stage, **scalars)
        if time.monotonic() > end:
            raise TimeUp

    return limiting


def _scalars(scalars: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in scalars.items())
