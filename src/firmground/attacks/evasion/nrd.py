"""Neural representation distortion: moves features far from where they were.

Naseer et al., "Cross-domain transferability of adversarial perturbations", NeurIPS 2019 workshop form arXiv 1811.09020
("Task-generalizable Adversarial Attack based on Perceptual Metric"), as PRM's authors compare with it: minus the mean
squared distance between clean and perturbed features, summed over the same layers as PRM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from firmground.attacks.evasion._layers import Tokens, layers_of
from firmground.attacks.evasion._search import Objective, Search, run
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders, Surrogate
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class NRD(Search):
    """Makes the distance between clean and perturbed features large."""

    name: ClassVar[str] = "nrd"
    paper: ClassVar[str] = "Naseer et al., arXiv 1811.09020"
    steps: int = 250
    step_size: float = 0.5 / 255
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "adam"
    layers: tuple[int, ...] | None = None
    tokens: Tokens = "all"

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""

        def begin(surrogate: Surrogate, clean: Images, target: Images) -> Objective:
            held = layers_of(surrogate, clean, self.layers, self.tokens)
            return lambda images: -distortion(layers_of(surrogate, images, self.layers, self.tokens), held)

        return run(self, encoder, images, begin, rng=rng, watch=watch)


def distortion(layers: list[torch.Tensor], held: list[torch.Tensor]) -> torch.Tensor:
    """The sum over layers of the mean squared distance, (batch,)."""
    apart = [(layer - before).square().mean(dim=(1, 2)) for layer, before in zip(layers, held, strict=True)]
    return torch.stack(apart).sum(dim=0)
