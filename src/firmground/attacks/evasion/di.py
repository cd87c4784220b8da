"""Input diversity: at every step the image is shrunk by chance and put somewhere on a black ground.

Xie et al., "Improving Transferability of Adversarial Examples with Input Diversity", CVPR 2019, arXiv 1803.06978, on
the image embedding and with momentum. Departs from the paper: one size and place are drawn a step for the whole batch,
the image is shrunk (from `smallest` of its size) rather than enlarged, and the search starts at random, see `mi`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F

from firmground.attacks.evasion._embedding import away_through
from firmground.attacks.evasion._search import Search, run
from firmground.bounds import SHARE, check_bounds
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class DI(Search):
    """Makes the cosine between the embeddings small, of images resized and padded with the probability `chance`."""

    name: ClassVar[str] = "di"
    paper: ClassVar[str] = "Xie et al., CVPR 2019, arXiv 1803.06978"
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "momentum"
    chance: float = 0.5
    smallest: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, chance=SHARE, smallest=(0.05, 1.0))

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""
        diverse = away_through(lambda seen: padded(seen, self.chance, self.smallest, rng))
        return run(self, encoder, images, diverse, rng=rng, watch=watch)


def padded(images: Images, chance: float, smallest: float, rng: torch.Generator) -> Images:
    """Images as they are or, by chance, resized to a share of at least `smallest` and padded to their old size."""
    coin, share, down, across = torch.rand(4, generator=rng, device=rng.device).tolist()
    if coin >= chance:
        return images
    height, width = images.shape[-2:]
    size = [max(1, round(side * (smallest + (1 - smallest) * share))) for side in (height, width)]
    small = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
    top, left = round(down * (height - size[0])), round(across * (width - size[1]))
    return F.pad(small, (left, width - size[1] - left, top, height - size[0] - top))
