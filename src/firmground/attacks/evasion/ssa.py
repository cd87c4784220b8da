"""Spectrum simulation: the mean gradient over copies whose frequencies are weighted at random.

Long et al., "Frequency Domain Model Augmentation for Adversarial Attack", ECCV 2022, arXiv 2207.05382, eq. 8: copies
IDCT(DCT(x + noise) * mask), noise of deviation epsilon, mask uniform in [1 - rho, 1 + rho]; on the image embedding and
with momentum. A step costs `copies` passes. Departs from the paper: the search starts at random, see `mi`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from firmground.attacks.evasion._embedding import away_through
from firmground.attacks.evasion._search import Search, run
from firmground.bounds import FROM_1, SHARE, check_bounds
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class SSA(Search):
    """Makes the cosine between the embeddings small, of `copies` with another spectrum at every step."""

    name: ClassVar[str] = "ssa"
    paper: ClassVar[str] = "Long et al., ECCV 2022, arXiv 2207.05382"
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "momentum"
    copies: int = 20
    rho: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, copies=FROM_1, rho=SHARE)

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""
        simulated = away_through(lambda seen: respectred(seen, self.epsilon, self.rho, rng))
        return run(self, encoder, images, simulated, rng=rng, watch=watch, draws=self.copies)


def respectred(images: Images, sigma: float, rho: float, rng: torch.Generator) -> Images:
    """Images with Gaussian noise and every frequency weighted by a number in [1 - rho, 1 + rho]."""
    noise = torch.randn(images.shape, generator=rng, device=rng.device).to(images)
    mask = 1 + rho * (2 * torch.rand(images.shape, generator=rng, device=rng.device).to(images) - 1)
    down, across = (cosine_basis(side, images) for side in images.shape[-2:])
    spectrum = down @ (images + sigma * noise) @ across.T
    return down.T @ (spectrum * mask) @ across


def cosine_basis(side: int, like: torch.Tensor) -> torch.Tensor:
    """The orthonormal discrete cosine transform of so many numbers, (side, side)."""
    steps = torch.arange(side, device=like.device, dtype=like.dtype)
    basis = torch.cos(math.pi * (steps + 0.5) * steps.view(-1, 1) / side) * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    return basis
