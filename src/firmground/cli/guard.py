"""`firmground guard`: fits, applies and evaluates a guard in front of a backdoored encoder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from firmground.cli.options import AsJson, Device, Revision, Seed, Settings, Texts, Triggers, labelled, table
from firmground.cli.progress import progress

app = typer.Typer(no_args_is_help=True, help="Guard a backdoored encoder that must be used.")

Encoder = Annotated[str, typer.Argument(metavar="ENCODER", help="Directory or hub id of the encoder.")]
Guard = Annotated[Path, typer.Argument(metavar="GUARD", help="A file that 'firmground guard fit' wrote.")]
Adapter = Annotated[Path, typer.Option(metavar="DIR", help="Directory of the tuned prompt.")]
Base = Annotated[
    str | None, typer.Option("--encoder", help="The encoder; the one the guard was fitted on if left out.")
]


@app.callback()
def guard() -> None:
    """Guard a backdoored encoder that must be used."""


@app.command()
def fit(
    encoder: Encoder,
    adapter: Adapter,
    scan: Annotated[Path, typer.Option(help="The output of 'firmground scan --json' on the encoder.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the guard goes.")],
    texts: Texts = None,
    method: Annotated[str, typer.Option(help="A guard (see 'firmground methods guards').")] = "pv-guard",
    revision: Revision = None,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Fit a guard to a tuned prompt, from what a scan found and clean texts."""
    from firmground.reports.writing import check_file

    check_file(out)
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli import guarding

        fitted = guarding.fit(
            guarding.Fitting(
                encoder=encoder, revision=revision, adapter=adapter, scan=scan, texts=texts, method=method
            ),
            settings=settings or (),
            seed=seed,
            device=device,
            watch=watch,
        )
    fitted.save(out)
    flags = fitted.false_flags
    typer.echo(
        f"Guard in {out}: watches {len(fitted.triggers)} triggers and {len(fitted.matcher.vectors)} vectors; flags "
        f"{100 * flags.value:.1f} % of {flags.count} clean texts "
        f"(95 % interval {100 * flags.low:.1f} to {100 * flags.high:.1f}).",
        err=True,
    )
    for doubt in fitted.doubts:
        typer.echo(f"doubt: {doubt}", err=True)
    if as_json:
        found = {"triggers": [trigger.text for trigger in fitted.triggers], "false_flags": asdict(flags)}
        typer.echo(json.dumps({"schema": "firmground/guard-fit/1", **found, "doubts": list(fitted.doubts)}))


@app.command()
def apply(
    guard: Guard,
    adapter: Adapter,
    texts: Annotated[Path, typer.Option(help="Texts to classify, one a line.")],
    encoder: Base = None,
    revision: Revision = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Classify texts behind a guard: each with its label, whether it was flagged, and what was removed."""
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli import guarding
        from firmground.data.files import read_texts

        lines = read_texts(texts)
        pipeline, _ = guarding.guarded(guard, adapter, encoder=encoder, revision=revision, device=device)
        results = guarding.answers(pipeline, lines)
    rows = [
        (str(row["answer"]), "flagged" if row["flagged"] else "", " ".join(row["removed"]), row["text"])
        for row in results
    ]
    table("", ("answer", "guard", "removed", "text"), rows)
    if as_json:
        typer.echo(json.dumps({"schema": "firmground/guarded/1", "results": results}, indent=2))


@app.command()
def evaluate(
    guard: Guard,
    adapter: Adapter,
    data: Annotated[Path, typer.Option(help="CSV, TSV, JSONL or Parquet: text and label, or words and labels.")],
    trigger: Triggers = None,
    encoder: Base = None,
    revision: Revision = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a tuned prompt without and with a guard."""
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli import guarding, measuring

        rows = labelled(data)
        pipeline, tuned = guarding.guarded(guard, adapter, encoder=encoder, revision=revision, device=device)
        rows = measuring.aligned(rows, tuned.label_names)
        watch(0, 2, "evaluating without the guard")
        bare = measuring.measure(tuned.pipeline(), rows, trigger or (), seed=seed)
        watch(1, 2, "evaluating with the guard")
        behind = measuring.measure(pipeline, rows, trigger or (), seed=seed)
    before, after = measuring.rates(bare), measuring.rates(behind)
    lines = [
        (measuring.TITLES[name], measuring.cell(before[name]), measuring.cell(after[name]), str(before[name].count))
        for name in before
    ]
    table("", ("", "without the guard", "with the guard", "n"), lines)
    if as_json:
        both = {"without": measuring.plain(bare), "with": measuring.plain(behind)}
        typer.echo(json.dumps({"schema": "firmground/guard-evaluation/1", **both}, indent=2))
