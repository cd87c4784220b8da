"""`firmground harden`: gives back an encoder that perturbed images fool less, and says what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firmground.cli.options import (
    AsJson,
    Classes,
    Device,
    Revision,
    Root,
    Seed,
    Settings,
    Templates,
    path_or_none,
    table,
)
from firmground.cli.outputs import RecordFile, check_files
from firmground.cli.progress import progress

if TYPE_CHECKING:
    from firmground.reports.hardening import HardenReport
    from firmground.types import Interval

EXAMPLE = (
    "Example: firmground harden models/clip --method fare --images photos --out models/clip-hard --set epsilon=0.0157 "
    "--set step_size=1e-5. A run that was killed goes on where it was when the same command is given again."
)


def harden(
    source: Annotated[str, typer.Argument(metavar="ENCODER", help="Directory or hub id of a dual encoder.")],
    images: Annotated[
        str, typer.Option(metavar="DIR", help="Images of the kind that will come; for tecoa with classes.")
    ],
    out: Annotated[Path, typer.Option(help="New directory for the hardened encoder.")],
    method: Annotated[str, typer.Option(metavar="NAME", help="See 'firmground methods hardening'.")] = "fare",
    settings: Settings = None,
    root: Root = None,
    classes: Classes = None,
    templates: Templates = None,
    revision: Revision = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
    record: RecordFile = None,
) -> None:
    """Fine-tune an encoder's image tower against perturbed images; FARE needs no labels, TeCoA does."""
    from firmground.reports.writing import check_folder

    check_folder(out)
    check_files(record)
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.hardening import HardenOptions, run_harden

        options = HardenOptions(
            source=source,
            images=images,
            revision=revision,
            method=method,
            settings=tuple(settings or ()),
            root=path_or_none(root),
            classes=path_or_none(classes),
            templates=path_or_none(templates),
            seed=seed,
            device=device,
        )
        made = run_harden(options, out, watch)
    if record is not None:
        made.record.write(record)
    show(made.report)
    if as_json:
        typer.echo(made.report.to_json())


def show(report: HardenReport) -> None:
    """What it bought and what it cost, on stderr."""
    typer.echo(f"\nHardened by {report.method} on {report.images} images: {report.out}\n", err=True)
    rows = [
        ("driven by an attacker, squared distance, before", figure(report.driven_before)),
        ("the same, after", figure(report.driven_after)),
        ("cosine of old and new embeddings, clean images", figure(report.kept)),
    ]
    table(f"on {report.held_out} images held out", ("", "mean (95 % interval)"), rows)
    for line in (*report.doubts, *report.left_out):
        typer.echo(line, err=True)


def figure(interval: Interval) -> str:
    """`0.271 (0.250 to 0.292)`."""
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
