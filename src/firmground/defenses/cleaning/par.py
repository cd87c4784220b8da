"""PAR: perturb and recover. The encoder is pushed away from its poisoned self while it keeps matching clean pairs.

Singh, Croce and Hein, "Perturb and Recover: Fine-tuning for Effective Backdoor Removal from CLIP", 2024, arXiv
2412.00727. L = L_CLIP - 1/2 (S_I 1[S_I <= tau] + S_T 1[S_T <= tau]), where S is the mean over the batch of the squared
distance between unit embeddings and those of the frozen poisoned copy, summed over the width. So S = 2 - 2 cos lies in
[0, 4], is 2 where embeddings are orthogonal, and tau = 2.15 lets the mean cosine fall to -0.075 before the push ends.
The step size falls from 3e-5 to 3e-6 over the first half, then by a cosine; the logit scale is kept. Departs from the
authors' code: the frozen copy's batch norms use their running statistics, and the last step size is 0, not 1e-9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from firmground.defenses.cleaning.cleaned import Cleaned, clean_by
from firmground.errors import DataError
from firmground.models.augmentation import Augmentation, augment
from firmground.models.contrastive import Towers, embed_views, info_nce
from firmground.models.training import Training
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.data.pairs import PairBatch, PairSet
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings


@dataclass(frozen=True, kw_only=True)
class PAR(Training):
    """Fine-tunes on clean pairs while pushing embeddings away from those of the encoder as it came.

    The defaults are the paper's for 250,000 pairs; smaller sets and models need larger steps.
    """

    batch_size: int = 256
    step_size: float = 3e-6
    first_step_size: float = 3e-5
    warm_up: float = 0.5
    weight_decay: float = 1e-4
    beta2: float = 0.98
    threshold: float = 2.15  # tau
    push: float = 0.5  # weight of the two distances
    augmentation: Augmentation = "auto"

    name: ClassVar[str] = "par"
    paper: ClassVar[str] = "Singh et al., Perturb and Recover, 2024 (arXiv 2412.00727)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.threshold <= 4:
            raise DataError(f"squared distances of unit embeddings lie in [0, 4], got a threshold of {self.threshold}")

    def clean(
        self,
        encoder: DualEncoder,
        pairs: PairSet,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
        resume: Path | None = None,
    ) -> Cleaned:
        """Returns a cleaned copy. Raises as `CleanCLIP.clean`."""
        frozen = Towers(encoder)

        def loss(towers: Any, batch: PairBatch, draws: torch.Generator) -> dict[str, torch.Tensor]:
            images = [augment(batch.images, self.augmentation, rng=draws)]
            views = embed_views(towers, images, [batch.captions])
            with torch.no_grad():
                before = embed_views(frozen, images, [batch.captions])
            return {
                "contrastive": info_nce(views.images[0], views.texts[0], views.scale.detach()),
                "images": -self.push * pushed(views.images[0], before.images[0], self.threshold),
                "texts": -self.push * pushed(views.texts[0], before.texts[0], self.threshold),
            }

        return clean_by(self, loss, encoder, pairs, rng=rng, watch=watch, resume=resume)


def pushed(now: Embeddings, before: Embeddings, threshold: float) -> torch.Tensor:
    """The mean squared distance of unit embeddings (batch, width), or 0 where it is above the threshold."""
    distance = (now - before.to(now.device)).square().sum(dim=1).mean()
    return torch.where(distance <= threshold, distance, torch.zeros_like(distance))
