"""`firmground clean`: gives back a safer dual encoder or visual prompt, what it cost, and what a new scan says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from firmground.cli.options import (
    AsJson,
    Classes,
    Device,
    FailOn,
    Model,
    Revision,
    Root,
    Seed,
    Settings,
    Templates,
    path_or_none,
    table,
)
from firmground.cli.outputs import HtmlReport, RecordFile, check_files, write_files
from firmground.cli.progress import progress
from firmground.cli.usage import leave

if TYPE_CHECKING:
    from firmground.reports.cleaning import CleanReport
    from firmground.reports.prompt_cleaning import PromptCleanReport

EXAMPLE = (
    "Example: firmground clean models/clip --data pairs.csv --out models/clip-clean --set step_size=1e-4 "
    "--set batch_size=128. A run that was killed goes on where it was when the same command is given again. A "
    "visual prompt: firmground clean prompt.safetensors --model resnet --data photos --out cleaned.safetensors"
)

Source = Annotated[
    str, typer.Argument(metavar="MODEL", help="Directory or hub id of a dual encoder, or a visual prompt: a file.")
]
Data = Annotated[
    str,
    typer.Option(
        metavar="PAIRS",
        help="Clean pairs: a table of image and caption, classes, or shards; for a prompt images with labels.",
    ),
]
Unlabelled = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Of a prompt: a folder of clean images without labels, for --set answers=1."),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="See 'firmground methods cleaning', 'prompt-cleaning'; disarm or prompt-distillation if left out.",
    ),
]
HeldOut = Annotated[
    float, typer.Option(metavar="SHARE", min=0.001, max=0.9, help="Share of the data that measures the cost.")
]


def clean(
    source: Source,
    data: Data,
    out: Annotated[Path, typer.Option(help="New directory for the cleaned encoder; for a prompt a file.")],
    model: Model = None,
    unlabelled: Unlabelled = None,
    revision: Revision = None,
    method: Method = None,
    settings: Settings = None,
    root: Root = None,
    classes: Classes = None,
    templates: Templates = None,
    held_out: HeldOut = 0.1,
    scan: Annotated[bool, typer.Option("--scan/--no-scan", help="Scan what was cleaned.")] = True,
    as_json: AsJson = False,
    report: HtmlReport = None,
    record: RecordFile = None,
    fail_on: Annotated[
        FailOn, typer.Option(help="The severity from which a finding of the scan exits 1.")
    ] = FailOn.LOW,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Clean a dual encoder or a visual prompt on clean data; exits as the scan of the result does."""
    from firmground.reports.writing import check_file, check_folder

    visual = Path(source).is_file()
    (check_file if visual else check_folder)(out)
    check_files(report, record)
    if not visual:
        leave("visual prompts", f"{source}, a directory or hub id,", model=model, unlabelled=unlabelled)
    asked: dict[str, Any] = {
        "source": source,
        "data": data,
        "root": path_or_none(root),
        "revision": revision,
        "settings": tuple(settings or ()),
        "classes": path_or_none(classes),
        "templates": path_or_none(templates),
        "held_out": held_out,
        "scan": scan,
        "fail_on": fail_on.value,
        "seed": seed,
        "device": device,
    } | ({} if method is None else {"method": method})
    own = {"model": model, "unlabelled": unlabelled}
    cleaned = _clean_prompt(asked | own, out) if visual else _clean_encoder(asked, out)
    write_files(cleaned, report=report, record=record)
    (show_prompt if visual else show)(cleaned.report)
    if as_json:
        typer.echo(cleaned.report.to_json())
    raise typer.Exit(cleaned.record.exit_code)


def _clean_encoder(asked: dict[str, Any], out: Path) -> Any:
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.cleaning import CleanOptions, run_clean

        return run_clean(CleanOptions(**asked), out, watch)


def _clean_prompt(asked: dict[str, Any], out: Path) -> Any:
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.prompt_cleaning import PromptCleanOptions, run_prompt_clean

        return run_prompt_clean(PromptCleanOptions(**asked), out, watch)


def show_prompt(report: PromptCleanReport) -> None:
    """What came of the cleaning of a prompt, on stderr."""
    from firmground.cli.scan import show as show_scan

    typer.echo(f"\nCleaned by {report.method} on {report.images} images: {report.out}\n", err=True)
    rows = [("clean accuracy", report.before.percent, report.after.percent)]
    table(f"on {report.held_out} images held out", ("", "before", "after"), rows)
    for line in report.left_out:
        typer.echo(line, err=True)
    if report.scan is not None:
        show_scan(report.scan)


def show(report: CleanReport) -> None:
    """What came of it, on stderr."""
    from firmground.cli.scan import show as show_scan
    from firmground.reports.cleaning import RATES

    typer.echo(f"\nCleaned by {report.method} on {report.pairs} pairs: {report.out}\n", err=True)
    rows = [(RATES[name], report.before[name].percent, report.after[name].percent) for name in report.after]
    table(f"on {report.held_out} pairs held out", ("", "before", "after"), rows)
    for line in report.left_out:
        typer.echo(line, err=True)
    if report.scan is not None:
        show_scan(report.scan)
