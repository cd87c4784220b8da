"""RVPT: deep prompts in a vision transformer learn the classes, and to read images unlike the encoder alone does.

Zhang et al., "Defending Multimodal Backdoored Models by Repulsive Visual Prompt Tuning", 2024, arXiv 2412.20392. Of a
few labelled images a class, with the encoder frozen,

    L = cross-entropy over the classes' names + repulsion mean cos(f_P(x), f(x)),

f_P and f the image tower's features with and without the prompts. What no class needs, triggers among it, is to be
read no more. What comes back is the encoder as it was, with prompts that its image tower reads from then on. They know
the classes that they were learned for: accuracy on others, and retrieval, may suffer.

Departs from the paper: features are what the tower pools (of a CLIP its class token after the last norm); AdamW and its
schedule, where the paper has SGD; a class's text is the mean over the templates.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from firmground.data.pair_files import TEMPLATES
from firmground.defenses.cleaning.cleaned import Cleaned, changes
from firmground.defenses.cleaning.supervised import labels_of
from firmground.errors import DataError
from firmground.models.classifiers import embed_names
from firmground.models.contrastive import share
from firmground.models.surrogates import projected
from firmground.models.token_prompts import attach, check_tokens, layers_of, reading
from firmground.models.training import Training, fit
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.data.pairs import PairBatch, PairSet
    from firmground.models.dual import DualEncoder

NOISE = 0.02  # the deviation of tokens at the start


class Prompts(torch.nn.Module):
    """What is learned: tokens, (layers, count, width)."""

    def __init__(self, tokens: torch.Tensor) -> None:
        super().__init__()
        self.tokens = torch.nn.Parameter(tokens)


@dataclass(frozen=True, kw_only=True)
class RVPT(Training):
    """Learns `tokens` prompt vectors for each of the first `depth` layers (all, where there are fewer) of a ViT tower.

    Of each class `shots` images are drawn; 0 takes all.
    """

    epochs: int = 50
    batch_size: int = 32
    step_size: float = 2e-3
    warm_up: float = 0.05
    weight_decay: float = 0.0
    shots: int = 16
    tokens: int = 50
    depth: int = 12
    repulsion: float = 2.0

    name: ClassVar[str] = "rvpt"
    paper: ClassVar[str] = "Zhang et al., RVPT, 2024 (arXiv 2412.20392)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens < 1 or self.depth < 1 or self.shots < 0 or self.repulsion < 0:
            raise DataError(
                "expected at least one token and a depth of one, shots and a repulsion of at least 0, got "
                f"{self.tokens}, {self.depth}, {self.shots} and {self.repulsion}"
            )

    def clean(
        self,
        encoder: DualEncoder,
        pairs: PairSet,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
        resume: Path | None = None,
    ) -> Cleaned:
        """Returns a copy that reads prompts.

        Raises `UnsupportedModelError` for an image tower that is no vision transformer, `DataError` where `pairs` have
        no labels, or one class only.
        """
        began = time.perf_counter()
        layers_of(encoder.model.vision_model, encoder.source, "take another method, such as disarm")
        labels, names = labels_of(pairs, "rvpt")
        drawn = self._few(labels, rng)
        few, labels = pairs.select(drawn), labels[drawn]  # type: ignore[attr-defined]
        copied = encoder.cast(torch.float32)
        module = Prompts(self._start(copied, rng))
        classes = embed_names(copied, names, TEMPLATES)

        def loss(prompts: Any, batch: PairBatch, draws: torch.Generator) -> dict[str, torch.Tensor]:
            own, world = share(len(batch))
            pixels, truth = copied.prepare(batch.images[own].to(copied.device)), labels[list(batch.rows[own])]
            with torch.no_grad():
                before = _pooled(copied, pixels)
            now = _prompted(copied, pixels, getattr(prompts, "module", prompts).tokens)
            logits = copied.logit_scale * projected(copied, now) @ classes.T
            alike = F.cosine_similarity(now, before).mean()
            return {
                "classes": F.cross_entropy(logits, truth.to(logits.device)) / world,
                "repulsion": self.repulsion * alike / world,
            }

        run: dict[str, str | int] = {"stage": self.name, "pairs": len(pairs)}
        fitted = fit(module, few, self, loss, rng=rng, watch=watch, stage=self.name, resume=resume, run=run)
        cleaned = encoder.copy()
        attach(cleaned.model.vision_model, module.tokens, encoder.source)
        return Cleaned(
            encoder=cleaned, method=self.name, settings=asdict(self), changed=changes(encoder, cleaned),
            losses=fitted.losses, steps=fitted.steps, seconds=time.perf_counter() - began,
        )  # fmt: skip

    def _few(self, labels: torch.Tensor, rng: torch.Generator) -> list[int]:
        """Rows of `shots` pairs a class, drawn; a pair of unknown class, -1, is left out."""
        order = torch.randperm(len(labels), generator=rng)
        rows = [order[labels[order] == label] for label in labels.unique() if label >= 0]
        return torch.cat([own[: self.shots or len(own)] for own in rows]).tolist()

    def _start(self, encoder: DualEncoder, rng: torch.Generator) -> torch.Tensor:
        tower = encoder.model.vision_model
        depth = min(self.depth, len(layers_of(tower, encoder.source)))
        drawn = NOISE * torch.randn((depth, self.tokens, tower.config.hidden_size), generator=rng)
        check_tokens(tower, drawn, encoder.source)
        return drawn.to(encoder.device)


def _pooled(encoder: DualEncoder, pixels: torch.Tensor) -> torch.Tensor:
    """The image tower's features before they are projected, (batch, width)."""
    pooled: torch.Tensor = encoder.model.vision_model(pixel_values=pixels).pooler_output
    return pooled


def _prompted(encoder: DualEncoder, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The same where the tower reads tokens, (layers, count, width)."""
    layers = layers_of(encoder.model.vision_model, encoder.source)
    with reading(layers, tokens):
        return _pooled(encoder, pixels)
