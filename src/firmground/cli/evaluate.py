"""`firmground evaluate`: clean accuracy, and how often triggers succeed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firmground.cli.options import AsJson, Device, Revision, Seed, Triggers, labelled, pick_device, table
from firmground.cli.progress import progress

if TYPE_CHECKING:
    from firmground.types import Interval


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
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.measuring import aligned, measure, plain, rates
        from firmground.prompts.tuned import load_tuned

        rows = labelled(data)
        tuned = load_tuned(encoder, adapter, revision=revision)
        tuned.model.to(pick_device(device))
        watch(0, 1, "evaluating")
        result = measure(tuned.pipeline(), aligned(rows, tuned.label_names), trigger or (), seed=seed)
    show(rates(result))
    if as_json:
        typer.echo(json.dumps({"schema": "firmground/evaluation/1", "results": plain(result)}, indent=2))


def show(found: dict[str, Interval]) -> None:
    """The rates with their 95 % confidence intervals, on stderr."""
    from firmground.cli.measuring import TITLES, cell

    rows = [(TITLES[name], cell(interval), str(interval.count)) for name, interval in found.items()]
    table("", ("", "rate (95 % interval)", "n"), rows)
