"""`firmground sift`: ranks image-text pairs by suspicion, and leaves the worst out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from firmground.cli.options import AsJson, Device, Revision, Root, Seed, Settings, path_or_none, pick_device, table
from firmground.cli.progress import progress

EXAMPLE = (
    "Example: firmground sift pairs.csv --encoder models/clip --out sifted --drop 0.02 --report sifted.html. Then "
    "train on the rest: firmground pretrain sifted/kept.csv --root . --out model"
)


def sift(
    pairs: Annotated[
        str, typer.Argument(metavar="PAIRS", help="A table of image and caption, a folder of classes, or shards.")
    ],
    encoder: Annotated[str, typer.Option(metavar="MODEL", help="Directory or hub id of a dual encoder.")],
    out: Annotated[Path, typer.Option(help="New directory for ranking.jsonl, kept.csv and sift.json.")],
    revision: Revision = None,
    method: Annotated[str, typer.Option(metavar="NAME", help="See 'firmground methods sifting'.")] = "dao",
    settings: Settings = None,
    drop: Annotated[
        float, typer.Option(metavar="SHARE", min=0, max=1, help="The share of the pairs that kept.csv leaves out.")
    ] = 0.01,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report with the most suspicious pairs.")] = None,
    root: Root = None,
) -> None:
    """Rank image-text pairs, most suspicious first; the encoder may be one that was trained on them."""
    from firmground.reports.writing import check_file, check_folder, write_atomically

    check_folder(out)
    if report is not None:
        check_file(report)
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli import catalogue
        from firmground.cli.settings import build
        from firmground.cli.sifted import pictures, summary, telling_words, write
        from firmground.data.pair_files import open_pairs
        from firmground.models.dual import DualEncoder
        from firmground.rng import stream

        (chosen,) = build([catalogue.method("sifting", method)], settings or ())
        model = DualEncoder.load(encoder, revision=revision, device=pick_device(device))
        opened = open_pairs(pairs, image_size=model.image_size, root=path_or_none(root))
        found = chosen.sift(model, opened, rng=stream(seed, "sift", method), watch=watch)
    told = summary(found, opened, source=pairs, encoder=encoder, drop=drop, seed=seed)
    write(out, found, opened, told, source=pairs if root is None else str(root))
    if report is not None:
        from firmground.reports.html import html
        from firmground.reports.sifting import sift_page

        page = sift_page(told, pictures(found, opened), telling_words(found, opened, told["dropped"]))
        write_atomically(report, html(page))
    rows = [(row["image"], row["caption"], f"{row['score']:.3f}") for row in told["most_suspicious"]]
    table("most suspicious", ("image", "caption", "score"), rows)
    typer.echo(f"\n{told['scored']} of {told['pairs']} pairs ranked, {told['dropped']} left out of {out}.", err=True)
    for line in told["doubts"]:
        typer.echo(line, err=True)
    if as_json:
        typer.echo(json.dumps(told, allow_nan=False))
