"""`firmground evaluate`: clean accuracy, and how often triggers succeed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firmground.cli.options import AsJson, Device, Revision, Seed, Triggers


def evaluate(
    encoder: Annotated[str, typer.Argument(metavar="ENCODER", help="Directory or hub id of a language encoder.")],
    adapter: Annotated[Path, typer.Option(help="Directory of a tuned prompt.")],
    data: Annotated[Path, typer.Option(help="CSV, TSV, JSONL or Parquet: text and label, or words and labels.")],
    trigger: Triggers = None,
    revision: Revision = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a tuned prompt: CA, macro-F1, and with triggers the attack success rates."""
    raise NotImplementedError("evaluate")
