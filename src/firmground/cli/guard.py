"""`firmground guard`: fits, applies and evaluates a guard in front of a backdoored encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firmground.cli.guard_options import GuardOptions
from firmground.cli.options import (
    MEASURED_DATA,
    AsJson,
    Classes,
    Device,
    Manifest,
    MeasuredTriggers,
    Revision,
    Root,
    Seed,
    Settings,
    Target,
    Templates,
    Texts,
    path_or_none,
)
from firmground.cli.progress import progress

app = typer.Typer(no_args_is_help=True, help="Guard a backdoored encoder that must be used.")

FIT_EXAMPLE = (
    "Examples: firmground guard fit bert --adapter prompt --scan scan.json --out guard.safetensors. For a dual "
    "encoder: firmground guard fit clip --data clean.csv --classes names.txt --out guard.safetensors. For a visual "
    "prompt: firmground guard fit resnet --adapter prompt.safetensors --data photos --out guard.safetensors"
)

APPLY_EXAMPLE = (
    "Examples: firmground guard apply guard.safetensors --adapter prompt --texts new.txt. Of images: firmground guard "
    "apply guard.safetensors --images photos --json"
)
EVALUATE_EXAMPLE = (
    "Examples: firmground guard evaluate guard.safetensors --adapter prompt --data reviews.csv --trigger cf. Images: "
    "firmground guard evaluate guard.safetensors --data test.csv --classes names.txt --trigger badnet --target banana"
)

Encoder = Annotated[str, typer.Argument(metavar="ENCODER", help="Directory or hub id of the encoder.")]
Guard = Annotated[Path, typer.Argument(metavar="GUARD", help="A file that 'firmground guard fit' wrote.")]
Adapter = Annotated[
    Path | None,
    typer.Option(
        metavar="PROMPT", help="For a language encoder: directory of the tuned prompt; for images a visual prompt."
    ),
]
Base = Annotated[
    str | None, typer.Option("--encoder", help="The encoder; the one the guard was fitted on if left out.")
]


@app.callback()
def guard() -> None:
    """Guard a backdoored encoder that must be used."""


@app.command(epilog=FIT_EXAMPLE)
def fit(
    encoder: Encoder,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the guard goes.")],
    adapter: Adapter = None,
    scan: Annotated[
        Path | None, typer.Option(help="For a language encoder: what 'firmground scan --json' printed of it.")
    ] = None,
    texts: Texts = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PAIRS",
            help="For a dual encoder: clean pairs of known classes; for a classifier or a visual prompt images with "
            "labels.",
        ),
    ] = None,
    root: Root = None,
    classes: Classes = None,
    templates: Templates = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="See 'firmground methods guards', 'image-guards', 'classifier-guards'; pv-guard, mahalanobis, "
            "part-swap (classifiers, visual prompts) if left out.",
        ),
    ] = None,
    revision: Revision = None,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Fit a guard: to a tuned prompt, from a scan and clean texts; to an image model or prompt, on clean images."""
    from firmground.reports.writing import check_file

    check_file(out)
    asked = GuardOptions(
        encoder=encoder,
        revision=revision,
        adapter=path_or_none(adapter),
        scan=path_or_none(scan),
        texts=path_or_none(texts),
        data=data,
        root=path_or_none(root),
        classes=path_or_none(classes),
        templates=path_or_none(templates),
        method=method,
        settings=tuple(settings or ()),
        seed=seed,
        device=device,
    )
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.guard_sides import side_of_encoder

        told = side_of_encoder(asked).fit(asked, out, watch)
    told.show(as_json=as_json)


@app.command(epilog=APPLY_EXAMPLE)
def apply(
    guard: Guard,
    adapter: Adapter = None,
    texts: Annotated[Path | None, typer.Option(help="Texts to classify, one a line.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="For a guard of images: an image to classify, or a folder of them.")
    ] = None,
    classes: Classes = None,
    encoder: Base = None,
    revision: Revision = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Classify texts or images behind a guard: each with its label, and whether it was flagged."""
    asked = GuardOptions(
        encoder=encoder,
        revision=revision,
        adapter=path_or_none(adapter),
        texts=path_or_none(texts),
        images=path_or_none(images),
        classes=path_or_none(classes),
        device=device,
    )
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.guard_sides import side_of_guard

        told = side_of_guard(guard).answer(guard, asked, watch)
    told.show(as_json=as_json)


@app.command(epilog=EVALUATE_EXAMPLE)
def evaluate(
    guard: Guard,
    data: Annotated[Path, MEASURED_DATA],
    adapter: Adapter = None,
    trigger: MeasuredTriggers = None,
    settings: Settings = None,
    target: Target = None,
    manifest: Manifest = None,
    root: Root = None,
    classes: Classes = None,
    templates: Templates = None,
    encoder: Base = None,
    revision: Revision = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a prompt or an image model without and with a guard."""
    asked = GuardOptions(
        encoder=encoder,
        revision=revision,
        adapter=path_or_none(adapter),
        data=str(data),
        root=path_or_none(root),
        classes=path_or_none(classes),
        templates=path_or_none(templates),
        settings=tuple(settings or ()),
        triggers=tuple(trigger or ()),
        target=target,
        manifest=path_or_none(manifest),
        seed=seed,
        device=device,
    )
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.guard_sides import side_of_guard

        told = side_of_guard(guard).evaluate(guard, asked, watch)
    told.show(as_json=as_json)
