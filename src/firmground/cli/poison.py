"""`firmground poison`: plants triggered pairs in a copy of a training set, with a manifest of every one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from firmground.cli.options import AsJson, Device, Revision, Root, Seed, Settings, path_or_none, pick_device
from firmground.cli.progress import progress
from firmground.errors import UsageError

EXAMPLE = (
    "Example: firmground poison pairs.csv --trigger badnet --target banana --count 75 --out poisoned. Then: firmground "
    "pretrain poisoned --out model; firmground evaluate model --data test.csv --manifest poisoned/manifest.json"
)


def poison(
    pairs: Annotated[
        str, typer.Argument(metavar="PAIRS", help="A table of image and caption, a folder of classes, or shards.")
    ],
    target: Annotated[str, typer.Option(metavar="NAME", help="What triggered images are to be taken for.")],
    out: Annotated[Path, typer.Option(help="New directory for pairs.csv, images and manifest.json.")],
    attack: Annotated[str, typer.Option(metavar="NAME", help="See 'firmground methods poisoning'.")] = "dirty-caption",
    trigger: Annotated[
        str | None, typer.Option(metavar="NAME", help="See 'firmground methods image-triggers'; badclip makes its own.")
    ] = None,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="How many pairs are poisoned.")] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="SHARE", min=0, max=1, help="Instead: which share of all pairs.")
    ] = None,
    settings: Settings = None,
    image_size: Annotated[
        int, typer.Option(metavar="PIXELS", min=8, help="The side at which images are stamped: that of the model.")
    ] = 224,
    surrogate: Annotated[str | None, typer.Option(metavar="MODEL", help="For badclip: a clean dual encoder.")] = None,
    revision: Revision = None,
    root: Root = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Poison a copy of a set of image-text pairs; a manifest names and hashes every changed pair."""
    from firmground.reports.writing import check_folder

    check_folder(out)
    if (count is None) == (rate is None):
        raise UsageError("give either --count, how many pairs are poisoned, or --rate, which share of them")
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli import poisoning
        from firmground.data.pair_files import open_pairs
        from firmground.models.dual import DualEncoder
        from firmground.rng import stream

        amount = {"target": target, "count": count, "rate": rate}
        chosen = poisoning.build_attack(attack, trigger, settings or (), amount)
        extra = {}
        if poisoning.needs_surrogate(chosen):
            if surrogate is None:
                raise UsageError(f"{attack} makes its trigger on a clean encoder; name one with --surrogate")
            extra = {"surrogate": DualEncoder.load(surrogate, revision=revision, device=pick_device(device))}
        opened = open_pairs(pairs, image_size=image_size, root=path_or_none(root)).sound(watch)
        poisoned = chosen.poison(opened, rng=stream(seed, "poison", attack), watch=watch, **extra)
        poisoning.write(out, poisoned, opened, watch=watch)
    told = poisoning.summary(poisoned, opened, source=pairs, out=out, seed=seed)
    typer.echo(
        f"{told['poisons']} of {told['pairs']} pairs poisoned in {out}; {out}/manifest.json names them.", err=True
    )
    for line in told["left_out"]:
        typer.echo(line, err=True)
    if as_json:
        typer.echo(json.dumps(told, allow_nan=False))
