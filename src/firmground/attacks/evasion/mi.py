"""Momentum: the sign of a running sum of normalised gradients.

Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018, arXiv 1710.06081, on the image embedding. Departs
from the paper: the search starts at random, since the embedding's cosine is stationary at the clean image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from firmground.attacks.evasion._embedding import away
from firmground.attacks.evasion._search import Search, run
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    import torch

    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class MI(Search):
    """Makes the cosine between the embeddings small, with momentum."""

    name: ClassVar[str] = "mi"
    paper: ClassVar[str] = "Dong et al., CVPR 2018, arXiv 1710.06081"
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "momentum"

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""
        return run(self, encoder, images, away, rng=rng, watch=watch)
