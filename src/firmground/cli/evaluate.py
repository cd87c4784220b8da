"""`firmground evaluate`: clean accuracy, and how often triggers succeed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from firmground.cli.evaluations import Asked, evaluate_asked
from firmground.cli.options import (
    MEASURED_DATA,
    AsJson,
    Classes,
    Device,
    Manifest,
    MeasuredTriggers,
    Model,
    Revision,
    Root,
    Seed,
    Settings,
    Target,
    Templates,
    path_or_none,
)

EXAMPLE = (
    "Examples: firmground evaluate bert --adapter prompt --data reviews.csv --trigger cf. firmground evaluate clip "
    "--data test.csv --classes names.txt --trigger badnet --target banana. firmground evaluate clip --data test.csv "
    "--manifest poisoned/manifest.json --task retrieval. firmground evaluate prompt.safetensors --model resnet --data "
    "photos. firmground evaluate segmentation --victim clipseg --images coco --attacked attacked --report seg.html"
)


class Task(StrEnum):
    """What a dual encoder is measured on."""

    ZERO_SHOT = "zero-shot"
    RETRIEVAL = "retrieval"
    LINEAR_PROBE = "linear-probe"


Subject = Annotated[
    str,
    typer.Argument(
        metavar="ENCODER",
        help="Directory or hub id of a language or dual encoder, or a visual prompt: a file; with --victim the "
        "task: segmentation, detection, captioning or vqa.",
    ),
]
Control = Annotated[
    Path | None,
    typer.Option(metavar="PROMPT", help="For a visual prompt: a clean one of the same labels, to compare with."),
]
Train = Annotated[
    Path | None,
    typer.Option(metavar="PAIRS", help="For a linear probe: what it learns; half of --data if left out."),
]
Victim = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Directory or hub id of a victim: CLIPSeg, OWL-ViT, BLIP ...")
]
Annotations = Annotated[
    Path | None, typer.Option(metavar="DIR", help="For a victim: a folder of images with annotations.json.")
]
Attacked = Annotated[Path | None, typer.Option(metavar="DIR", help="For a victim: attacked images of the same names.")]


def evaluate(
    encoder: Subject,
    data: Annotated[Path | None, MEASURED_DATA] = None,
    adapter: Annotated[Path | None, typer.Option(help="For a language encoder: directory of a tuned prompt.")] = None,
    trigger: MeasuredTriggers = None,
    settings: Settings = None,
    target: Target = None,
    manifest: Manifest = None,
    model: Model = None,
    control: Control = None,
    task: Annotated[
        Task | None, typer.Option(help="For a dual encoder; zero-shot where classes are known, else retrieval.")
    ] = None,
    root: Root = None,
    classes: Classes = None,
    templates: Templates = None,
    train: Train = None,
    victim: Victim = None,
    images: Annotations = None,
    attacked: Attacked = None,
    report: Annotated[Path | None, typer.Option(help="For a victim: write an HTML report with pictures.")] = None,
    record: Annotated[Path | None, typer.Option(help="For a victim: write the record for 'firmground rerun'.")] = None,
    revision: Revision = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a tuned or a visual prompt, a dual encoder, or a victim that is built on one; triggers give ASRs."""
    asked = Asked(
        subject=encoder,
        revision=revision,
        adapter=path_or_none(adapter),
        model=model,
        control=path_or_none(control),
        victim=victim,
        images=path_or_none(images),
        attacked=path_or_none(attacked),
        report=path_or_none(report),
        record=path_or_none(record),
        data=path_or_none(data),
        root=path_or_none(root),
        classes=path_or_none(classes),
        templates=path_or_none(templates),
        train=path_or_none(train),
        task=None if task is None else task.value,
        triggers=tuple(trigger or ()),
        settings=tuple(settings or ()),
        target=target,
        manifest=path_or_none(manifest),
        seed=seed,
        device=device,
    )
    evaluate_asked(asked, as_json=as_json)
