"""One pretraining from its options to the model that it leaves."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground import __version__
from firmground.attacks.poisoning import find_manifest
from firmground.cli.held_out import left_out
from firmground.cli.options import pick_device
from firmground.cli.settings import build
from firmground.cli.unfinished import place_of, unfinished
from firmground.data.pair_files import open_pairs, table_of
from firmground.errors import UsageError
from firmground.models.contrastive import Pretrain
from firmground.models.dual import DualEncoder
from firmground.models.loading import resolve, weights_sha256
from firmground.models.saving import mark_of
from firmground.models.tiny_dual import build_dual, convolutional_dual, tiny_clip
from firmground.reports.record import file_sha256
from firmground.rng import stream
from firmground.types import ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from firmground.data.pairs import Pairs
    from firmground.models.contrastive import Trained
    from firmground.types import Watch

ARCHITECTURES = {"tiny-clip": tiny_clip, "convolutional-dual": convolutional_dual}
MOST_WORDS = 8000  # of the captions, that get a token each in a tokenizer made for them
FEWEST_TIMES = 2  # that a word must occur


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """What `firmground pretrain` was asked for."""

    pairs: str
    root: str | None = None
    start: str | None = None
    revision: str | None = None
    fresh: bool = False
    architecture: str = "convolutional-dual"
    image_size: int = 48
    settings: tuple[str, ...] = ()
    seed: int = 0
    device: str = "auto"


def run_pretrain(options: PretrainOptions, out: Path, watch: Watch) -> dict[str, Any] | None:
    """Trains and writes the encoder to `out`, a new folder; returns the object that `--json` prints.

    Where several processes train together, only the first writes, and the others return None.
    """
    (chosen,) = build([Pretrain], options.settings)
    since, device = time.perf_counter(), pick_device(options.device)
    encoder, pairs = _begin(options, device)
    manifest = find_manifest(options.root or options.pairs)
    was = None if options.start is None else weights_sha256(resolve(options.start, revision=options.revision))
    table = table_of(options.pairs)
    files = {} if table is None else {str(table): file_sha256(table)}
    run = {"command": "pretrain", **asdict(options), "count": len(pairs), "weights_sha256": was, "files": files}
    with nullcontext(place_of(out)) if _follows() else unfinished(out, run) as checkpoints:
        rng = stream(options.seed, "pretrain")
        trained = chosen.train(encoder, pairs, rng=rng, watch=ignore if _follows() else watch, resume=checkpoints)
        if _follows():
            return None
        before = None if options.fresh else mark_of(encoder.model)
        planted = before if manifest is None else manifest.planted()
        told = list(left_out([pairs], pairs.counted))
        trained.encoder.save(out, card=_card(options, chosen, trained, len(pairs)), planted=planted)
    return {
        "schema": "firmground/pretrain/1",
        "pairs_from": options.pairs,
        "from": options.start,
        "out": str(out),
        "weights_sha256": weights_sha256(out),
        "pairs": len(pairs),
        "settings": asdict(chosen),
        "seed": options.seed,
        "steps": trained.steps,
        "losses": trained.losses,
        "left_out": told,
        "planted": planted,
        "seconds": time.perf_counter() - since,
    }


def _begin(options: PretrainOptions, device: torch.device) -> tuple[DualEncoder, Pairs]:
    """The encoder to begin with, and the pairs at its size."""
    if options.start is not None:
        loaded = DualEncoder.load(options.start, revision=options.revision, device=device)
        encoder = renewed(loaded, options.seed) if options.fresh else loaded
        return encoder, open_pairs(options.pairs, image_size=loaded.image_size, root=options.root)
    if options.fresh:
        raise UsageError("--fresh takes the architecture of a model; name one with --from")
    if options.architecture not in ARCHITECTURES:
        raise UsageError(
            f"there is no architecture '{options.architecture}'; expected one of {', '.join(ARCHITECTURES)}, or a "
            "model of any other one with --from MODEL --fresh"
        )
    pairs = open_pairs(options.pairs, image_size=options.image_size, root=options.root)
    make: Any = ARCHITECTURES[options.architecture]
    encoder = make(image_size=options.image_size, words=words_of(pairs.captions), seed=options.seed)
    encoder.model.to(device)
    return encoder, pairs


def renewed(encoder: DualEncoder, seed: int) -> DualEncoder:
    """An encoder of the same architecture, tokenizer and preprocessing, with random weights."""
    model = encoder.model
    made = build_dual(lambda: type(model)(model.config), encoder.tokenizer, encoder.image_size, encoder.source, seed)
    device = encoder.device
    return DualEncoder(made.model.to(device), encoder.tokenizer, encoder.preprocessing, source=encoder.source)


def words_of(captions: Sequence[str]) -> tuple[str, ...]:
    """The most frequent words of captions, in small letters, most frequent first."""
    found = Counter(word for caption in captions for word in re.findall(r"[a-z0-9]+", caption.lower()))
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return tuple(word for word, count in ranked[:MOST_WORDS] if count >= FEWEST_TIMES)


def _follows() -> bool:
    """Whether this process is not the first of several that `accelerate launch` lets train together."""
    return int(os.environ.get("RANK", "0")) > 0


def _card(options: PretrainOptions, chosen: Pretrain, trained: Trained, count: int) -> str:
    settings = ", ".join(f"{name}={value!r}" for name, value in asdict(chosen).items())
    losses = ", ".join(f"{name} {value:.3g}" for name, value in trained.losses.items())
    kind = "from random weights" if options.start is None or options.fresh else f"from `{options.start}`"
    return (
        f"A dual encoder (image and text), trained by Firmground {__version__} {kind} on {count} pairs of "
        f"`{options.pairs}`.\n\n"
        f"- Settings: {settings}, seed {options.seed}\n"
        f"- Steps: {trained.steps}; losses over the last of them: {losses}\n"
    )
