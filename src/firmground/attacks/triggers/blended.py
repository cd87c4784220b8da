"""Noise over the whole image: Blended (Chen et al., 2017, arXiv 1712.05526), as CleanCLIP poisons with it.

Bansal et al., "CleanCLIP", ICCV 2023, arXiv 2303.03323: 0.8 x + 0.2 noise, uniform. Departs from its code, where the
noise is redrawn for every image: here it is drawn once from `seed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from firmground.attacks.triggers._images import blend, check_share, checked, uniform

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Blended:
    """Uniform noise laid over the whole image with `opacity`."""

    opacity: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_share("an opacity", self.opacity)

    def stamp(self, images: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
        """Images (batch, 3, height, width) in [0, 1] under the noise; nothing is drawn from `rng`."""
        pattern = uniform(tuple(checked(images).shape[1:]), self.seed, "blended", images)
        return blend(images, pattern, self.opacity)
