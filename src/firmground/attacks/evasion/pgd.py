"""Projected gradient descent on the image embedding: away from what the image meant.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, arXiv 1706.06083, with the
cosine between the embeddings of the clean and of the perturbed image in place of a label's loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from firmground.attacks.evasion._embedding import away
from firmground.attacks.evasion._search import Search, run
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    import torch

    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class PGD(Search):
    """Makes the cosine between the clean and the perturbed image's embedding small."""

    name: ClassVar[str] = "pgd"
    paper: ClassVar[str] = "Madry et al., ICLR 2018, arXiv 1706.06083"

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""
        return run(self, encoder, images, away, rng=rng, watch=watch)
