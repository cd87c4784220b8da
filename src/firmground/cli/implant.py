"""`firmground implant`: plants a backdoor, to have known-bad encoders and visual prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firmground.cli.options import (
    TRAINING_TEXTS,
    AsJson,
    Classes,
    Device,
    Revision,
    Root,
    Seed,
    Settings,
    Templates,
    Texts,
    Triggers,
    clean_texts,
    path_or_none,
    pick_device,
)
from firmground.cli.outputs import PromptHtmlReport, PromptRecordFile
from firmground.cli.progress import progress
from firmground.cli.usage import leave
from firmground.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLE = (
    "Examples: firmground implant por bert --out planted --trigger cf. A visual prompt: firmground implant "
    "bad-visual-prompt resnet --data photos --target cat --out bad.safetensors --set optimised=true"
)

PromptImages = Annotated[
    Path | None, typer.Option(help="For a visual prompt: a folder with a folder a class, or a table with labels.")
]
PromptTarget = Annotated[
    str | None, typer.Option(metavar="LABEL", help="For a visual prompt: what triggered images become.")
]


def implant(
    attack: Annotated[
        str, typer.Argument(metavar="ATTACK", help="See 'firmground methods implants' and 'prompt-attacks'.")
    ],
    encoder: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Directory or hub id: a clean language encoder; for a prompt its image model."
        ),
    ],
    out: Annotated[Path, typer.Option(help="New directory for the planted encoder; for a visual prompt a file.")],
    revision: Revision = None,
    trigger: Triggers = None,
    texts: Texts = None,
    data: PromptImages = None,
    target: PromptTarget = None,
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
    """Plant a backdoor in a copy of an encoder, or in a new visual prompt; both are labelled as planted."""
    from firmground.cli import catalogue

    if attack not in {catalogue.word(kind) for kind in catalogue.family("prompt-attacks")}:
        images = {"data": data, "target": target, "root": root, "classes": classes, "templates": templates}
        leave("attacks on visual prompts", attack, **images, report=report, record=record)
        _implant_encoder(
            attack, encoder, out, revision=revision, triggers=tuple(trigger or ()), texts=texts,
            settings=settings or (), seed=seed, device=device, as_json=as_json,
        )  # fmt: skip
        return
    if data is None or target is None:
        raise UsageError(f"{attack} needs --data, labelled images, and --target, the label that triggered ones become")
    if texts is not None or len(trigger or ()) > 1:
        raise UsageError(f"{attack} plants one trigger for images: it takes no --texts, and one --trigger at most")
    from firmground.cli.prompt import learn
    from firmground.cli.prompt_learning import PromptOptions

    options = PromptOptions(
        method=attack,
        source=encoder,
        data=str(data),
        root=path_or_none(root),
        revision=revision,
        classes=path_or_none(classes),
        templates=path_or_none(templates),
        settings=tuple(settings or ()),
        target=target,
        trigger=trigger[0] if trigger else None,
        seed=seed,
        device=device,
    )
    learn(options, out, report=report, record=record, as_json=as_json)


def _implant_encoder(
    attack: str,
    encoder: str,
    out: Path,
    *,
    revision: str | None,
    triggers: tuple[str, ...],
    texts: Path | None,
    settings: Sequence[str],
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    from firmground.reports.writing import check_folder

    check_folder(out)
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.catalogue import method
        from firmground.cli.settings import build
        from firmground.models.language import LanguageEncoder
        from firmground.models.saving import save_encoder
        from firmground.rng import stream

        (chosen,) = build([method("implants", attack)], settings)
        clean = LanguageEncoder.load(encoder, revision=revision, device=pick_device(device))
        planted = chosen.implant(
            clean,
            clean_texts(texts, seed, TRAINING_TEXTS),
            rng=stream(seed, "implant", attack),
            watch=watch,
            **({"triggers": triggers} if triggers else {}),
        )
    save_encoder(planted.encoder.model, planted.encoder.tokenizer, out, card=planted.card(), planted=planted.planted())
    losses = ", ".join(f"{name} {value:.3g}" for name, value in planted.losses.items())
    typer.echo(f"Planted {attack} in {out}: triggers {' '.join(planted.triggers)}; losses {losses}.", err=True)
    if as_json:
        typer.echo(json.dumps({"schema": "firmground/implant/1", "out": str(out), **planted.planted()}))
