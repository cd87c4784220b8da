"""A sinusoid over the whole image: SIG (Barni et al., ICIP 2019, arXiv 1902.11237), as CleanCLIP poisons with it.

x(i, j) + amplitude sin(2 pi j frequency / width): vertical bars. Departs from CleanCLIP's code (Bansal et al., ICCV
2023), which blends the wave at 0.2 and so leaves a fifth of the amplitude: here the whole amplitude is added, as in
SIG's own paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from firmground.attacks.triggers._images import check_share, checked


@dataclass(frozen=True, kw_only=True)
class SIG:
    """A wave of `amplitude` (in [0, 1] units) that runs across the image `frequency` times."""

    amplitude: float = 60 / 255
    frequency: float = 6.0

    def __post_init__(self) -> None:
        check_share("an amplitude", self.amplitude)

    def stamp(self, images: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
        """Images (batch, 3, height, width) in [0, 1] with the wave added; nothing is drawn from `rng`."""
        width = checked(images).shape[-1]
        across = torch.arange(width, device=images.device) * (2 * math.pi * self.frequency / width)
        return (images + self.amplitude * across.sin().to(images)).clamp(0, 1)
