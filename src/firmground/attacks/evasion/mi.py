"""Momentum: the sign of a running sum of normalised gradients.

Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018, arXiv 1710.06081, on the image embedding: PGD
with another optimizer. Departs from the paper: the search starts at random, since the embedding's cosine is stationary
at the clean image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from firmground.attacks.evasion.pgd import PGD


@dataclass(frozen=True, kw_only=True)
class MI(PGD):
    """Makes the cosine between the embeddings small, as PGD does, with momentum."""

    name: ClassVar[str] = "mi"
    paper: ClassVar[str] = "Dong et al., CVPR 2018, arXiv 1710.06081"
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "momentum"
