"""`firmground implant`: plants a backdoor, to have known-bad encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from firmground.cli.options import (
    TRAINING_TEXTS,
    AsJson,
    Device,
    Revision,
    Seed,
    Settings,
    Texts,
    Triggers,
    clean_texts,
    pick_device,
)
from firmground.cli.progress import progress


def implant(
    attack: Annotated[str, typer.Argument(metavar="ATTACK", help="An implant (see 'firmground methods implants').")],
    encoder: Annotated[str, typer.Argument(metavar="ENCODER", help="Directory or hub id of a clean language encoder.")],
    out: Annotated[Path, typer.Option(help="New directory for the planted encoder.")],
    revision: Revision = None,
    trigger: Triggers = None,
    texts: Texts = None,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Plant a backdoor in a copy of an encoder; the copy is labelled as planted."""
    from firmground.reports.writing import check_folder

    check_folder(out)
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.catalogue import method
        from firmground.cli.settings import build
        from firmground.models.language import LanguageEncoder
        from firmground.models.saving import save_encoder
        from firmground.rng import stream

        (chosen,) = build([method("implants", attack)], settings or ())
        clean = LanguageEncoder.load(encoder, revision=revision, device=pick_device(device))
        planted = chosen.implant(
            clean,
            clean_texts(texts, seed, TRAINING_TEXTS),
            rng=stream(seed, "implant", attack),
            watch=watch,
            **({"triggers": tuple(trigger)} if trigger else {}),
        )
    save_encoder(planted.encoder.model, planted.encoder.tokenizer, out, card=planted.card(), planted=planted.planted())
    losses = ", ".join(f"{name} {value:.3g}" for name, value in planted.losses.items())
    typer.echo(f"Planted {attack} in {out}: triggers {' '.join(planted.triggers)}; losses {losses}.", err=True)
    if as_json:
        typer.echo(json.dumps({"schema": "firmground/implant/1", "out": str(out), **planted.planted()}))
