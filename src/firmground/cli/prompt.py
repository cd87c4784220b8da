"""`firmground prompt fit`: learns a soft prompt on a frozen encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from firmground.cli.options import AsJson, Device, Revision, Seed, Settings, labelled, pick_device
from firmground.cli.progress import progress

app = typer.Typer(no_args_is_help=True, help="Learn a soft prompt on a frozen encoder.")


@app.callback()
def prompt() -> None:
    """Learn a soft prompt on a frozen encoder."""


@app.command()
def fit(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="prompt-tuning, p-tuning or prefix-tuning.")],
    encoder: Annotated[str, typer.Argument(metavar="ENCODER", help="Directory or hub id of a language encoder.")],
    data: Annotated[Path, typer.Option(help="CSV, TSV, JSONL or Parquet: text and label, or words and labels.")],
    out: Annotated[Path, typer.Option(help="New directory for the PEFT adapter.")],
    revision: Revision = None,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Tune a prompt and a head on labelled data; the encoder stays as it is."""
    from firmground.cli import catalogue
    from firmground.cli.settings import build
    from firmground.models.language import LanguageEncoder
    from firmground.reports.writing import check_folder
    from firmground.rng import stream

    check_folder(out)
    (chosen,) = build([catalogue.method("prompts", method)], settings or ())
    where, rows = pick_device(device), labelled(data)
    frozen = LanguageEncoder.load(encoder, revision=revision, device=where)
    with progress() as watch:
        tuned = chosen.fit(frozen, rows, rng=stream(seed, "prompt", method), watch=watch)
    tuned.save(out)
    accuracy = tuned.measurements.get("validation_accuracy", float("nan"))
    typer.echo(f"Tuned {method} in {out}: validation accuracy {accuracy:.3f}.", err=True)
    if as_json:
        typer.echo(json.dumps({"schema": "firmground/prompt/1", "out": str(out), **tuned.measurements}))
