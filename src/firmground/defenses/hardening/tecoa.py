"""TeCoA: text-guided contrastive adversarial training. Perturbed images are to be classified right by their texts.

Mao et al., "Understanding Zero-Shot Adversarial Robustness for Large-Scale Models", ICLR 2023, arXiv 2212.07016: the
cross-entropy of the images' similarities to the texts of all classes, on images perturbed to make it large. It needs
labels, and bends the embeddings towards these classes. Departs from the paper in what Schlarmann et al. (ICML 2024)
changed for their comparison: AdamW with a cosine in place of SGD, ten inner steps; and a class's text is the mean over
the templates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from firmground.defenses.hardening.hardened import Adversarial, Hardened, harden_by
from firmground.errors import DataError
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.data.pairs import PairBatch, PairSet
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings


@dataclass(frozen=True, kw_only=True)
class TeCoA(Adversarial):
    """Fine-tunes the image tower to classify perturbed images by the texts of their classes."""

    name: ClassVar[str] = "tecoa"
    paper: ClassVar[str] = "Mao et al., TeCoA, ICLR 2023 (arXiv 2212.07016)"

    templates: tuple[str, ...] = ("a photo of a {}",)

    def harden(
        self,
        encoder: DualEncoder,
        images: PairSet,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
        resume: Path | None = None,
    ) -> Hardened:
        """Returns a hardened copy. Raises `DataError` where the images have no labels of two classes or more."""
        labels, names = getattr(images, "labels", None), getattr(images, "label_names", ())
        if labels is None or len(names) < 2:
            raise DataError("TeCoA needs images of two classes or more with their labels; FARE needs none")
        if not self.templates or any("{}" not in template for template in self.templates):
            raise DataError(f"each template needs a {{}} for the name of a class, got {self.templates}")
        classes, scale = class_texts(encoder, names, self.templates), encoder.logit_scale.detach().float()

        def truth(batch: PairBatch, own: slice) -> torch.Tensor:
            return torch.tensor([labels[row] for row in batch.rows[own]], device=encoder.device)

        def loss(found: Embeddings, right: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(scale * found @ classes.T, right, reduction="none")

        return harden_by(self, encoder, images, truth, loss, rng=rng, watch=watch, resume=resume)


@torch.no_grad()
def class_texts(encoder: DualEncoder, names: tuple[str, ...], templates: tuple[str, ...]) -> Embeddings:
    """One unit embedding a class, (classes, width)."""
    prompts = [template.format(name) for name in names for template in templates]
    found = encoder.embed_texts(prompts).float().view(len(names), len(templates), -1).mean(dim=1)
    return F.normalize(found, dim=1)
