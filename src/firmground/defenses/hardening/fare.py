"""FARE: robust embeddings without labels. Perturbed images are to embed as the clean ones did.

Schlarmann et al., "Robust CLIP: Unsupervised Adversarial Fine-Tuning of Vision Embeddings for Robust Large
Vision-Language Models", ICML 2024, arXiv 2402.12336, eq. 3: min over the tower phi of the maximum over perturbations of
|phi(x') - phi_orig(x)|^2, by ten steps of projected gradient ascent and AdamW. So the text tower, and whatever was
built on the old embeddings, goes on working. Departs from the authors' code: embeddings have length one, as zero-shot
classification and retrieval read them, so that the loss lies in [0, 4] whatever the model's scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.defenses.hardening.hardened import Adversarial, Hardened, harden_by
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.data.pairs import PairBatch, PairSet
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings


@dataclass(frozen=True, kw_only=True)
class FARE(Adversarial):
    """Fine-tunes the image tower so that embeddings stay where they were under perturbations of the image.

    The defaults are the paper's for ImageNet and ViT-L; smaller sets and models need larger steps.
    """

    name: ClassVar[str] = "fare"
    paper: ClassVar[str] = "Schlarmann et al., Robust CLIP, ICML 2024 (arXiv 2402.12336)"

    def harden(
        self,
        encoder: DualEncoder,
        images: PairSet,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
        resume: Path | None = None,
    ) -> Hardened:
        """Returns a hardened copy; captions and labels are not looked at. Raises what `training.fit` does."""

        @torch.no_grad()
        def before(batch: PairBatch, own: slice) -> Embeddings:
            return encoder.embed_images(batch.images[own].to(encoder.device)).float()

        return harden_by(self, encoder, images, before, distance, rng=rng, watch=watch, resume=resume)


def distance(now: Embeddings, before: Embeddings) -> torch.Tensor:
    """The squared distance of each pair of embeddings, (batch,)."""
    return (now - before).square().sum(dim=1)
