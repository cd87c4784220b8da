"""`firmground pretrain`: trains a dual encoder on pairs, from scratch or from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from firmground.cli.options import AsJson, Device, Revision, Root, Seed, Settings, path_or_none
from firmground.cli.progress import progress

EXAMPLE = (
    "Example: firmground pretrain pairs.csv --out model --image-size 48 --set epochs=8 --set step_size=2e-3. A run "
    "that was killed goes on where it was when the same command is given again. On many devices: accelerate launch "
    "--num_processes 8 $(which firmground) pretrain ..."
)


def pretrain(
    pairs: Annotated[
        str, typer.Argument(metavar="PAIRS", help="A table of image and caption, a folder of classes, or shards.")
    ],
    out: Annotated[Path, typer.Option(help="New directory for the encoder.")],
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="Directory or hub id of the dual encoder to begin with."),
    ] = None,
    revision: Revision = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="With --from: take its architecture and tokenizer, not its weights.")
    ] = False,
    architecture: Annotated[
        str, typer.Option(metavar="NAME", help="Without --from: tiny-clip or convolutional-dual.")
    ] = "convolutional-dual",
    image_size: Annotated[
        int, typer.Option(metavar="PIXELS", min=16, help="Without --from: the side of the images.")
    ] = 48,
    settings: Settings = None,
    root: Root = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train a dual encoder on image-text pairs; one trained on a poisoned set is marked as planted."""
    from firmground.reports.writing import check_folder

    check_folder(out)
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.pretraining import PretrainOptions, run_pretrain

        options = PretrainOptions(
            pairs=pairs,
            root=path_or_none(root),
            start=start,
            revision=revision,
            fresh=fresh,
            architecture=architecture,
            image_size=image_size,
            settings=tuple(settings or ()),
            seed=seed,
            device=device,
        )
        told = run_pretrain(options, out, watch)
    if told is None:  # the process of another device writes and tells
        return
    losses = ", ".join(f"{name} {value:.3g}" for name, value in told["losses"].items())
    typer.echo(f"Trained on {told['pairs']} pairs for {told['steps']} steps: {out}; losses {losses}.", err=True)
    for line in told["left_out"]:
        typer.echo(line, err=True)
    if told["planted"] is not None:
        typer.echo("The pairs are a poisoned set; the encoder is marked as planted.", err=True)
    if as_json:
        typer.echo(json.dumps(told, allow_nan=False))
