"""What a cleaning gives back."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from firmground import __version__
from firmground.models.contrastive import check_captions, train_encoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from firmground.data.pairs import PairBatch, PairSet
    from firmground.models.contrastive import Trained
    from firmground.models.dual import DualEncoder
    from firmground.types import Watch


@dataclass(frozen=True, kw_only=True, eq=False)
class Cleaned:
    """A cleaned copy of an encoder, and what was done to it.

    `changed` says how far the weights of each part moved, as a share of their norm; `losses` are each term's mean over
    the last steps; `settings` rebuilds the method of that name. `head`, (classes, width), is the linear classifier that
    supervised fine-tuning trained along, None for the others.
    """

    encoder: DualEncoder
    method: str
    settings: dict[str, Any]
    changed: dict[str, float]
    losses: dict[str, float]
    steps: int
    seconds: float
    head: torch.Tensor | None = None

    def card(self) -> str:
        """The text of the saved model's card (Markdown)."""
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        moved = ", ".join(f"{name} {100 * share:.2g} %" for name, share in self.changed.items())
        return (
            f"This is `{self.encoder.source}` after cleaning by Firmground {__version__}. Cleaning lowers what a "
            "backdoor can do; it does not prove that none is left.\n\n"
            f"- Method: `{self.method}` ({settings})\n"
            f"- Steps: {self.steps}\n"
            f"- Weights moved by, as a share of their norm: {moved}\n"
        )


def clean_by(
    method: Any,
    objective: Callable[[Any, PairBatch, torch.Generator], dict[str, torch.Tensor]],
    encoder: DualEncoder,
    pairs: PairSet,
    *,
    rng: torch.Generator,
    watch: Watch,
    resume: Path | None,
) -> Cleaned:
    """Trains a copy by the method's schedule and loss, with a fresh optimizer, and says what changed."""
    check_captions(pairs)
    begun = time.perf_counter()
    trained = train_encoder(encoder, pairs, method, objective, rng=rng, watch=watch, stage=method.name, resume=resume)
    return cleaned_by(method, trained, encoder, time.perf_counter() - begun)


def cleaned_by(
    method: Any, trained: Trained, encoder: DualEncoder, seconds: float, head: torch.Tensor | None = None
) -> Cleaned:
    """The result of a training that is done."""
    return Cleaned(
        encoder=trained.encoder,
        method=method.name,
        settings=asdict(method),
        changed=changes(encoder, trained.encoder),
        losses=trained.losses,
        steps=trained.steps,
        seconds=seconds,
        head=head,
    )


def changes(before: DualEncoder, after: DualEncoder) -> dict[str, float]:
    """How far each part of the model moved: the norm of the difference of its weights by the norm they had."""
    old, new = dict(before.model.named_parameters()), dict(after.model.named_parameters())
    parts: dict[str, list[str]] = {}
    for name in old:
        parts.setdefault(name.split(".")[0], []).append(name)
    return {part: _moved([old[name] for name in names], [new[name] for name in names]) for part, names in parts.items()}


def _moved(old: list[torch.Tensor], new: list[torch.Tensor]) -> float:
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(old, new, strict=True)]
    far = sum(float((b - a).square().sum()) for a, b in pairs)
    size = sum(float(a.square().sum()) for a, _ in pairs)
    return float((far / size) ** 0.5) if size else 0.0
