"""`firmground perturb`: adversarial images made on an encoder, with a manifest of every one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firmground.cli.options import AsJson, Device, Revision, Seed, Settings, path_or_none, visible
from firmground.cli.outputs import HtmlReport, RecordFile, check_files, write_files
from firmground.cli.progress import progress

if TYPE_CHECKING:
    from firmground.reports.perturbing import PerturbReport

EXAMPLE = (
    "Example: firmground perturb prm photos --encoder models/clip --epsilon 8/255 --out attacked --report it.html. "
    "A run that was killed goes on where it was when the same command is given again."
)


def perturb(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="See 'firmground methods evasion'.")],
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="A folder of images, or one image.")],
    encoder: Annotated[
        list[str], typer.Option(metavar="MODEL", help="The encoder to make them on; repeat for an ensemble.")
    ],
    out: Annotated[Path, typer.Option(help="New directory for PNG images of the same names and manifest.json.")],
    revision: Revision = None,
    epsilon: Annotated[
        str | None, typer.Option(metavar="SHARE", help="How far a pixel may go, of its range from 0 to 1: 8/255, 0.03.")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Steps of the search.")] = None,
    settings: Settings = None,
    target: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="What images are to be taken for, for attacks with an aim.")
    ] = None,
    largest: Annotated[
        int, typer.Option(metavar="PIXELS", min=32, help="Images with a longer side are made this large.")
    ] = 1024,
    jpeg: Annotated[
        int | None, typer.Option(metavar="QUALITY", min=1, max=100, help="Write JPEG files instead of PNG.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
    report: HtmlReport = None,
    record: RecordFile = None,
) -> None:
    """Make adversarial images on an encoder, without labels, texts or a task; a manifest hashes every one."""
    from firmground.reports.writing import check_folder

    check_folder(out)
    check_files(report, record)
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.perturbing import PerturbOptions, fraction, run_perturb

        given = [f"epsilon={fraction(epsilon)}"] if epsilon is not None else []
        given += [f"steps={steps}"] if steps is not None else []
        options = PerturbOptions(
            method=method,
            images=images,
            encoders=tuple(encoder),
            revision=revision,
            settings=(*given, *(settings or ())),
            target=path_or_none(target),
            largest=largest,
            jpeg=jpeg,
            seed=seed,
            device=device,
        )
        made = run_perturb(options, out, watch)
    write_files(made, report=report, record=record)
    show(made.report)
    if as_json:
        typer.echo(made.report.to_json())


def show(report: PerturbReport) -> None:
    """What came of it, on stderr."""
    from firmground.data.counting import several

    farthest = max(image.distance for image in report.images)
    before, after = (
        sum(getattr(image, name) for image in report.images) / len(report.images) for name in ("before", "after")
    )
    typer.echo(
        f"{several(len(report.images), 'image')} perturbed by {report.method} in {report.out}, by "
        f"{255 * farthest:.3g}/255 at most; its objective went from {before:.3g} to {after:.3g}.",
        err=True,
    )
    for line in (*report.left_out, *report.doubts):
        typer.echo(visible(line), err=True)
