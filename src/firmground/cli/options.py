"""Options that several commands share, and the small things every command does with them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from firmground.errors import FirmgroundError, UsageError
from firmground.reports.text import visible as shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch


class FailOn(StrEnum):
    """From which severity a finding makes the exit code 1."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...; auto takes a GPU if there is one.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method; repeat for more.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Texts = Annotated[Path | None, typer.Option(help="Clean texts, one a line; built-in ones if left out.")]
Triggers = Annotated[list[str] | None, typer.Option("--trigger", metavar="WORD", help="A trigger; repeat for more.")]
Revision = Annotated[str | None, typer.Option(help="Revision of a hub id: a branch, tag or commit.")]
Classes = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Names of the classes that images show, one a line.")
]
Root = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where the images of a table of pairs lie; the table's folder if left out."),
]
Templates = Annotated[
    Path | None, typer.Option(metavar="FILE", help="What to ask for a class, one a line with {} for its name.")
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="For a visual prompt: directory or hub id of its image model."),
]
MEASURED_DATA = typer.Option(
    help="CSV, TSV, JSONL or Parquet: text and label, words and labels; for a dual encoder, pairs; for a visual prompt "
    "images with labels, also as a folder with a folder a class."
)
MeasuredTriggers = Annotated[
    list[str] | None,
    typer.Option("--trigger", metavar="WORD", help="A trigger, repeat for more; for images one of them."),
]
Target = Annotated[
    str | None, typer.Option(metavar="NAME", help="For images: what triggered ones are to be taken for.")
]
Manifest = Annotated[
    Path | None,
    typer.Option(help="For images: take trigger and target from a poisoning's manifest, or from a planted prompt."),
]

SCAN_TEXTS, GUARD_TEXTS, TRAINING_TEXTS = 64, 256, 1024  # how many built-in sentences stand in for a file


def pick_device(name: str) -> torch.device:
    """The device of that name. Raises `UsageError` where there is none."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"there is no device '{name}' here; expected auto, cpu, cuda or cuda:N") from error
    return device


def path_or_none(path: Path | None) -> str | None:
    """A path as a record stores it."""
    return None if path is None else str(path)


def clean_texts(path: Path | str | None, seed: int, count: int) -> Sequence[str]:
    """The texts of a file, or `count` built-in sentences."""
    if path is not None:
        from firmground.data.files import read_texts

        return read_texts(path)
    from firmground.data.sentences import neutral_sentences
    from firmground.rng import stream

    return neutral_sentences(count, rng=stream(seed, "texts"))


def labelled(path: Path) -> Any:
    """Labelled texts, or labelled words where the rows hold lists of words."""
    from firmground.data.files import read_labelled_texts, read_labelled_words

    try:
        return read_labelled_texts(path)
    except FirmgroundError:
        if path.suffix.lower() not in (".jsonl", ".parquet") or not _has_words(path):
            raise
        return read_labelled_words(path)


def _has_words(path: Path) -> bool:
    """Whether the first row of a file holds words instead of a text."""
    if path.suffix.lower() == ".jsonl":
        import json

        with path.open(encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip()), "{}")
        try:
            row = json.loads(first)
        except ValueError:
            return False
        return isinstance(row, dict) and "words" in row
    import pyarrow.parquet  # type: ignore[import-untyped]

    return "words" in pyarrow.parquet.read_schema(path).names


def table(title: str, columns: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> None:
    """A table on stderr; its cells are shown as they are, without markup and without control characters."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        drawn.add_row(*(Text(visible(cell)) for cell in row))
    Console(stderr=True, highlight=False).print(drawn)


def visible(text: str) -> str:
    """Spells out what cannot be printed; line breaks stay."""
    return "\n".join(map(shown, text.split("\n")))
