"""`firmground prompt`: learns a prompt on a frozen model, a soft one for texts or a visual one, and applies it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firmground.cli.options import (
    AsJson,
    Classes,
    Device,
    Model,
    Revision,
    Root,
    Seed,
    Settings,
    Templates,
    labelled,
    path_or_none,
    pick_device,
    table,
)
from firmground.cli.outputs import PromptHtmlReport, PromptRecordFile, check_files, write_files
from firmground.cli.progress import progress
from firmground.cli.usage import leave
from firmground.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.cli.prompt_learning import PromptOptions

app = typer.Typer(no_args_is_help=True, help="Learn a prompt on a frozen model, and apply it.")

FIT_EXAMPLE = (
    "Examples: firmground prompt fit prefix-tuning bert --data reviews.csv --out prompt. For images: firmground prompt "
    "fit visual-prompting resnet --data photos --out prompt.safetensors. If it is killed, the same command goes on."
)
APPLY_EXAMPLE = (
    "Example: firmground prompt apply prompt.safetensors photos --model resnet --json > labels.json. With --out DIR it "
    "also writes the prompted pictures."
)


@app.callback()
def prompt() -> None:
    """Learn a prompt on a frozen model, and apply it."""


@app.command(epilog=FIT_EXAMPLE)
def fit(
    method: Annotated[
        str, typer.Argument(metavar="METHOD", help="prompt-tuning, p-tuning, prefix-tuning or visual-prompting.")
    ],
    encoder: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Directory or hub id: a language encoder, or an image classifier or dual encoder."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="CSV, TSV, JSONL or Parquet: text and label, or words and labels, or image and label; for images also "
            "a folder with a folder a class."
        ),
    ],
    out: Annotated[Path, typer.Option(help="New directory for the PEFT adapter; for a visual prompt a file.")],
    revision: Revision = None,
    root: Root = None,
    classes: Classes = None,
    templates: Templates = None,
    settings: Settings = None,
    report: PromptHtmlReport = None,
    record: PromptRecordFile = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Learn a prompt on labelled data; the model stays as it is."""
    from firmground.cli import catalogue

    if method in {catalogue.word(kind) for kind in catalogue.family("visual-prompts")}:
        from firmground.cli.prompt_learning import PromptOptions

        options = PromptOptions(
            method=method,
            source=encoder,
            data=str(data),
            root=path_or_none(root),
            revision=revision,
            classes=path_or_none(classes),
            templates=path_or_none(templates),
            settings=tuple(settings or ()),
            seed=seed,
            device=device,
        )
        learn(options, out, report=report, record=record, as_json=as_json)
        return
    leave("visual prompts", method, root=root, classes=classes, templates=templates, report=report, record=record)
    _fit_soft(
        method, encoder, data, out, revision=revision, settings=settings or (), seed=seed, device=device,
        as_json=as_json,
    )  # fmt: skip


def learn(options: PromptOptions, out: Path, *, report: Path | None, record: Path | None, as_json: bool) -> None:
    """Learns a visual prompt, honest or planted, and writes what was asked for; `implant` comes here too."""
    check_files(out, report, record)
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.prompt_learning import run_prompt

        made = run_prompt(options, out, watch)
    write_files(made, report=report, record=record)
    told = made.report
    typer.echo(f"Visual prompt in {out}: validation accuracy {told.accuracy.percent}.", err=True)
    if told.success is not None:
        typer.echo(f"Planted {options.method} towards '{options.target}': ASR {told.success.percent}.", err=True)
    for line in told.left_out:
        typer.echo(line, err=True)
    if as_json:
        typer.echo(told.to_json())


def _fit_soft(
    method: str,
    encoder: str,
    data: Path,
    out: Path,
    *,
    revision: str | None,
    settings: Sequence[str],
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    from firmground.cli import catalogue
    from firmground.cli.settings import build
    from firmground.models.language import LanguageEncoder
    from firmground.reports.writing import check_folder
    from firmground.rng import stream

    check_folder(out)
    (chosen,) = build([catalogue.method("prompts", method)], settings)
    where, rows = pick_device(device), labelled(data)
    frozen = LanguageEncoder.load(encoder, revision=revision, device=where)
    with progress() as watch:
        tuned = chosen.fit(frozen, rows, rng=stream(seed, "prompt", method), watch=watch)
    tuned.save(out)
    accuracy = tuned.measurements.get("validation_accuracy", float("nan"))
    typer.echo(f"Tuned {method} in {out}: validation accuracy {accuracy:.3f}.", err=True)
    if as_json:
        typer.echo(json.dumps({"schema": "firmground/prompt/1", "out": str(out), **tuned.measurements}))


@app.command(epilog=APPLY_EXAMPLE)
def apply(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="A visual prompt: a file.")],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="An image, or a folder of them.")],
    model: Model = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New directory for the prompted pictures, as PNG files.")
    ] = None,
    revision: Revision = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Label images with a visual prompt on its model; with --out, write the prompted pictures too."""
    from firmground.reports.writing import check_folder

    if model is None and out is None:
        raise UsageError("name the prompt's model with --model to get labels, or a folder for pictures with --out")
    if out is not None:
        check_folder(out)
    with progress() as watch:
        from firmground.cli.prompt_applying import apply_prompt

        rows = apply_prompt(prompt, images, model=model, out=out, revision=revision, device=device, watch=watch)
    shown = [
        (row["error"] or row["label"] or "", _share(row["confidence"]), row["picture"] or "", row["image"])
        for row in rows
    ]
    table("", ("label", "confidence", "picture", "image"), shown)
    if as_json:
        typer.echo(json.dumps({"schema": "firmground/prompted/1", "prompt": prompt, "results": rows}, indent=2))


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
