"""Reversal: turns tokens away, as PRM does, and turns round what sets each one apart from the others.

Ours, after PRM (Zhang et al., BMVC 2024, arXiv 2403.12693). Tokens share most of their direction: a mean that says
nothing about the image, in channels of very different strength. PRM's cosine is taken up by it, counts an empty place
as much as an object, and rewards any direction that leads away. So a second term looks at features standardised,
channel by channel, by the clean tokens of the batch, z = (F - mean) / deviation. Made small is, summed over layers,

    alignment * mean over places of cos(F', F)  +  sum over places of <z', z> / sum over places of <z, z>.

The second term is 1 for the clean image, 0 once nothing is left of what set its tokens apart, and negative where that
is reversed; a place counts in it as much as it stands out. Steps are signed and large, and at every step the image has
noise on it, so that the change does not lean on the last bit of the surrogate's weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.attacks.evasion._layers import Tokens, cosines, layers_of, squares
from firmground.attacks.evasion._search import Objective, Search, run
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders, Surrogate
    from firmground.types import Images

FLOOR = 1e-3  # of a layer's deviation: a channel that never changes says nothing


@dataclass(frozen=True, kw_only=True)
class Reversal(Search):
    """Makes the cosine with clean tokens small, and the agreement of standardised tokens with them negative.

    `alignment` is the weight of the cosine; `noise` is the deviation of what is added to the image at every step, as a
    share of epsilon.
    """

    name: ClassVar[str] = "reversal"
    paper: ClassVar[str] = "Ours, after Zhang et al., BMVC 2024"
    steps: int = 250
    step_size: float = 2 / 255
    layers: tuple[int, ...] | None = None
    tokens: Tokens = "all"
    alignment: float = 6.0
    noise: float = 0.5

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""

        def begin(surrogate: Surrogate, clean: Images, target: Images) -> Objective:
            held = [Held.of(layer) for layer in layers_of(surrogate, clean, self.layers, self.tokens)]

            def objective(images: Images) -> torch.Tensor:
                drawn = torch.randn(images.shape, generator=rng, device=rng.device).to(images)
                seen = layers_of(surrogate, images + self.noise * self.epsilon * drawn, self.layers, self.tokens)
                parts = [own.loss(layer, self.alignment) for layer, own in zip(seen, held, strict=True)]
                return torch.stack(parts).sum(dim=0)

            return objective

        return run(self, encoder, images, begin, rng=rng, watch=watch)


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """A layer's clean tokens: `units` of length one, and `weights`, both (batch, places, width).

    A layer's product with `weights`, less `offset`, (batch,), is its standardised agreement: standardising is folded
    into both, so that a step costs one product.
    """

    units: torch.Tensor
    weights: torch.Tensor
    offset: torch.Tensor

    @classmethod
    def of(cls, layer: torch.Tensor) -> Held:
        """Standardises clean tokens, (batch, places, width), by the means and deviations of their channels."""
        mean = layer.mean(dim=(0, 1))
        deviation = layer.std(dim=(0, 1), correction=0) + FLOOR * layer.std(correction=0)
        z = (layer - mean) / deviation
        weights = z / deviation / z.square().sum(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
        units = layer / squares(layer).sqrt().unsqueeze(-1)
        return cls(units=units, weights=weights, offset=(weights * mean).sum(dim=(1, 2)))

    def loss(self, layer: torch.Tensor, alignment: float) -> torch.Tensor:
        """Both terms for one layer, (batch,)."""
        agreement = (layer * self.weights).sum(dim=(1, 2)) - self.offset
        return agreement + alignment * cosines(layer, self.units).mean(dim=1)
