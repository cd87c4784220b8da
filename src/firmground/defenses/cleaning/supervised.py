"""Supervised fine-tuning of the image tower, the second defence of CleanCLIP's paper.

Bansal et al., "CleanCLIP", ICCV 2023, arXiv 2303.03323: the image tower and a linear head learn labelled images, by
cross-entropy. Departs from the paper: the head reads unit embeddings times the logit scale. With a head that starts at
random, images may leave the texts that they were near; one that starts from the classes' names (after Goyal et al.,
"Finetune Like You Pretrain", CVPR 2023) keeps zero-shot classification.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F

from firmground.data.pair_files import TEMPLATES
from firmground.defenses.cleaning.cleaned import Cleaned, cleaned_by
from firmground.errors import DataError
from firmground.models.augmentation import Augmentation, augment
from firmground.models.contrastive import finished, share
from firmground.models.dual import IMAGE_PARTS
from firmground.models.training import Training, fit
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.data.pairs import PairBatch, PairSet
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images


class Classifier(torch.nn.Module):
    """The image tower with a linear head, as one module."""

    def __init__(self, encoder: DualEncoder, head: Embeddings) -> None:
        super().__init__()
        self.model = encoder.model
        self.encoder = encoder
        self.head = torch.nn.Parameter(head.clone())
        self.bias = torch.nn.Parameter(torch.zeros(len(head), device=head.device))

    def forward(self, images: Images) -> torch.Tensor:
        """Logits, (batch, classes)."""
        embedded = self.encoder.embed_images(images.to(self.head.device))
        return self.encoder.logit_scale * embedded @ self.head.T + self.bias


@dataclass(frozen=True, kw_only=True)
class SupervisedFinetune(Training):
    """Fine-tunes the image tower and a linear head on labelled images; the text tower stays."""

    step_size: float = 1e-4
    start: Literal["random", "names"] = "random"  # of the head
    augmentation: Augmentation = "none"

    name: ClassVar[str] = "supervised"
    paper: ClassVar[str] = "Bansal et al., CleanCLIP, ICCV 2023 (arXiv 2303.03323), its supervised variant"

    def clean(
        self,
        encoder: DualEncoder,
        pairs: PairSet,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
        resume: Path | None = None,
    ) -> Cleaned:
        """Returns a cleaned copy and its head. Raises `DataError` where `pairs` have no labels, or one class only."""
        labels, names = labels_of(pairs, "supervised fine-tuning")
        begun = time.perf_counter()
        copied = encoder.cast(torch.float32)
        for name, value in copied.model.named_parameters():
            value.requires_grad_(name.startswith(IMAGE_PARTS))
        module = Classifier(copied, self._head(copied, names, rng))

        def loss(classifier: Any, batch: PairBatch, draws: torch.Generator) -> dict[str, torch.Tensor]:
            own, world = share(len(batch))
            logits = classifier(augment(batch.images, self.augmentation, rng=draws)[own])
            return {"classes": F.cross_entropy(logits, labels[list(batch.rows[own])].to(logits.device)) / world}

        run: dict[str, str | int] = {"stage": self.name, "pairs": len(pairs)}
        fitted = fit(module, pairs, self, loss, rng=rng, watch=watch, stage=self.name, resume=resume, run=run)
        trained = finished(copied, encoder, fitted)
        return cleaned_by(self, trained, encoder, time.perf_counter() - begun, module.head.detach().to(encoder.device))

    def _head(self, encoder: DualEncoder, names: tuple[str, ...], rng: torch.Generator) -> Embeddings:
        if self.start == "random":
            drawn: Embeddings = torch.randn((len(names), encoder.width), generator=rng) * encoder.width**-0.5
            return drawn.to(encoder.device)
        with torch.no_grad():
            prompts = [template.format(name) for name in names for template in TEMPLATES]
            means = encoder.embed_texts(prompts).view(len(names), len(TEMPLATES), -1).mean(dim=1)
        return F.normalize(means, dim=1)


def labels_of(pairs: PairSet, method: str) -> tuple[torch.Tensor, tuple[str, ...]]:
    """The labels, (pairs,), and the classes' names. Raises `DataError` where there are none, or one class only."""
    labels: tuple[int, ...] | None = getattr(pairs, "labels", None)
    names: tuple[str, ...] = getattr(pairs, "label_names", ())
    if labels is None or not names:
        raise DataError(f"{method} needs labelled images; pass a folder of classes, or use cleanclip")
    if len(set(labels)) < 2:
        raise DataError(f"all {len(labels)} images are of one class; {method} needs two at least")
    return torch.tensor(labels), names
