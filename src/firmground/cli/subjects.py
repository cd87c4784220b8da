"""What a scan needs of each kind of target: an encoder or a prompt, clean inputs for it, and the default methods."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from firmground.cli.options import SCAN_TEXTS, clean_texts
from firmground.errors import FirmgroundError, UsageError
from firmground.models.inspecting import encoder_kind
from firmground.models.loading import resolve, weights_sha256
from firmground.reports.findings import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.cli.scanning import ScanOptions
    from firmground.reports.html import Section
    from firmground.types import Images, Verdict, Watch

IMAGES = 64  # of a set given by --images, from rows spread over it


Kind: TypeAlias = Literal["language", "dual", "prompt"]
FAMILY: dict[Kind, str] = {"language": "scans", "dual": "dual-scans", "prompt": "prompt-scans"}
# options that mean nothing for a kind, what it is called, and what it takes instead
WRONG: dict[Kind, tuple[tuple[str, ...], str, str]] = {
    "language": (("images", "classes", "model"), "a language encoder", "--texts and --adapter"),
    "dual": (("adapter", "texts", "model"), "a dual encoder", "--images and --classes"),
    "prompt": (("adapter", "texts"), "a visual prompt", "--model and --data"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """What is scanned, with the `clean` inputs that its scans take, and the `default` scan of it.

    `target` names it in the report; `shown` are sections that show it.
    """

    kind: str
    encoder: Any
    clean: Any
    default: Callable[..., tuple[Verdict, ...]]
    target: Target
    shown: tuple[Section, ...] = ()


def kind_of(source: str, revision: str | None) -> Kind:
    """What lies there: a file is a prompt; where nothing usable lies, loading says why, and this does not."""
    if Path(source).is_file():
        return "prompt"
    return "dual" if is_dual(source, revision) else "language"


def is_dual(source: str, revision: str | None) -> bool:
    """Whether a dual encoder lies there; where nothing usable does, loading says why, and this does not."""
    try:
        return encoder_kind(resolve(source, revision=revision)) == "dual"
    except FirmgroundError:
        return False


def needs_dual(source: str, revision: str | None) -> bool:
    """Whether a dual encoder lies there; raises `FirmgroundError` where no encoder does."""
    return encoder_kind(resolve(source, revision=revision)) == "dual"


def check_options(options: ScanOptions, kind: Kind) -> None:
    """Refuses options that mean nothing for this kind of target."""
    wrong, called, instead = WRONG[kind]
    given = [name for name in wrong if getattr(options, name) is not None]
    if given:
        raise UsageError(f"--{given[0]} is not for {called}, which {options.source} is; it takes {instead}")


def subject(options: ScanOptions, device: torch.device, kind: Kind, watch: Watch) -> Subject:
    """Loads what the options name. Raises `FirmgroundError` where that cannot be loaded or read."""
    if kind == "prompt":
        from firmground.cli.prompt_scanning import prompt_subject

        return prompt_subject(options, device, watch)
    return _dual(options, device) if kind == "dual" else _language(options, device)


def _target(options: ScanOptions) -> Target:
    return Target(
        source=options.source,
        revision=options.revision,
        adapter=options.adapter,
        weights_sha256=weights_sha256(resolve(options.source, revision=options.revision)),
    )


def _language(options: ScanOptions, device: torch.device) -> Subject:
    from firmground.defenses.scans import default
    from firmground.models.language import LanguageEncoder

    texts = clean_texts(options.texts, options.seed, SCAN_TEXTS)
    encoder = LanguageEncoder.load(
        options.source, revision=options.revision, adapter=options.adapter, device=device, dtype=torch.float32
    )
    return Subject(
        kind="language-encoder", encoder=encoder, clean=texts, default=default.scan_language, target=_target(options)
    )


def _dual(options: ScanOptions, device: torch.device) -> Subject:
    from firmground.defenses.scans import default_dual
    from firmground.models.dual import DualEncoder

    encoder = DualEncoder.load(options.source, revision=options.revision, device=device, dtype=torch.float32)
    if options.images is None:
        images, classes = default_dual.default_images(encoder), None
    else:
        images, classes = _shown(options.images, encoder.image_size)
    if options.classes is not None:
        from firmground.data.files import read_texts

        classes = tuple(read_texts(options.classes))
    scan = partial(default_dual.scan_dual, classes=classes)
    return Subject(kind="dual-encoder", encoder=encoder, clean=images, default=scan, target=_target(options))


def _shown(source: str, image_size: int) -> tuple[Images, tuple[str, ...] | None]:
    """Up to `IMAGES` images spread over a set, (count, 3, image_size, image_size), and its classes where it has any."""
    from firmground.cli.held_out import spread
    from firmground.data.pair_files import open_pairs

    pairs = open_pairs(source, image_size=image_size)
    return spread(pairs, IMAGES), enough(pairs.label_names)


def enough(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The names of classes, where there are enough of them to be compared by a scan."""
    from firmground.defenses.scans.class_inversion import FEWEST_CLASSES

    return names if len(names) >= FEWEST_CLASSES else None
