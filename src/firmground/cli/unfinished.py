"""Where a training keeps its checkpoints until it is done: a folder beside its output, from which it goes on."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from firmground.errors import OutputError
from firmground.reports.writing import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = "run.json"


def place_of(out: Path) -> Path:
    """The folder beside `out`."""
    return out.with_name(f"{out.name}.unfinished")


@contextmanager
def unfinished(out: Path, run: dict[str, Any]) -> Iterator[Path]:
    """The checkpoints of a run towards `out`; they stay if it is killed or fails, and go when it has ended well.

    `run` says in JSON what the run is. Raises `OutputError` where the checkpoints there are those of another one.
    """
    folder = place_of(out)
    if (folder / RUN).is_file():
        _check(folder, run)
        typer.echo(f"Going on from {folder}.", err=True)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RUN, json.dumps(run, indent=2) + "\n")
    try:
        yield folder
    except BaseException:
        if not any(folder.glob("step-*")):  # nothing to go on from
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _check(folder: Path, run: dict[str, Any]) -> None:
    try:
        before = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except ValueError:
        before = {}
    now = json.loads(json.dumps(run))
    differs = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
    if differs:
        name = differs[0]
        raise OutputError(
            f"{folder} holds another unfinished run: its {name} is {before.get(name)!r}, this one's {now.get(name)!r}; "
            "repeat that run's command to finish it, or remove the folder"
        )
