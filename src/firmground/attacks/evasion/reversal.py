"""Reversal: turns round what sets a token apart from the others, instead of the whole token.

Ours, after PRM (Zhang et al., BMVC 2024, arXiv 2403.12693). Tokens share most of their direction: a mean that says
nothing about the image, in channels of very different strength. PRM's cosine is taken up by it, counts an empty place
as much as an object, and rewards any direction that leads away. Here features are standardised, channel by channel, by
the clean tokens of the batch: z = (F - mean) / deviation. Made small is, for each layer,

    sum over places of <z', z>  /  sum over places of <z, z>,

which is 1 for the clean image, 0 once nothing is left of what set its tokens apart, and negative where that is
reversed: a place counts as much as it stands out. What enters the first block is left out, since its features are
little more than pixels, which cannot change much. Signed steps, and noise on the image at every step, so that
the change does not lean on the last bit of the surrogate's weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.attacks.evasion._layers import Tokens, layers_of
from firmground.attacks.evasion._search import Objective, Search, run
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders, Surrogate
    from firmground.types import Images

FLOOR = 1e-3  # of a layer's deviation: a channel that never changes says nothing


@dataclass(frozen=True, kw_only=True)
class Reversal(Search):
    """Makes the agreement of standardised tokens with the clean ones small, and negative.

    `layers` are all but the first by default; `noise` is the deviation of what is added to the image at every step, as
    a share of epsilon.
    """

    name: ClassVar[str] = "reversal"
    paper: ClassVar[str] = "Ours, after Zhang et al., BMVC 2024"
    steps: int = 250
    step_size: float = 2 / 255
    layers: tuple[int, ...] | None = None
    tokens: Tokens = "all"
    noise: float = 1.0

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""

        def begin(surrogate: Surrogate, clean: Images, target: Images) -> Objective:
            wanted = self.layers or tuple(range(1, len(surrogate.features(clean[:1]).layers)))
            held = [Standard.of(layer) for layer in layers_of(surrogate, clean, wanted, self.tokens)]

            def objective(images: Images) -> torch.Tensor:
                drawn = torch.randn(images.shape, generator=rng, device=rng.device).to(images)
                seen = images + self.noise * self.epsilon * drawn
                return agreement(layers_of(surrogate, seen, wanted, self.tokens), held)

            return objective

        return run(self, encoder, images, begin, rng=rng, watch=watch)


@dataclass(frozen=True, kw_only=True, eq=False)
class Standard:
    """The clean tokens of a layer as weights: `agreement` is a product with `weights`, (batch, places, width), less
    `offset`, (batch,). Standardising is folded into both, so that a step costs one product a layer.
    """

    weights: torch.Tensor
    offset: torch.Tensor

    @classmethod
    def of(cls, layer: torch.Tensor) -> Standard:
        """Standardises a layer's clean tokens, (batch, places, width), by the means and deviations of its channels."""
        mean = layer.mean(dim=(0, 1))
        deviation = layer.std(dim=(0, 1), correction=0) + FLOOR * layer.std(correction=0)
        z = (layer - mean) / deviation
        weights = z / deviation / z.square().sum(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
        return cls(weights=weights, offset=(weights * mean).sum(dim=(1, 2)))


def agreement(layers: Sequence[torch.Tensor], held: Sequence[Standard]) -> torch.Tensor:
    """The mean over layers of the share of the clean tokens' peculiarity that is left, (batch,)."""
    parts = [(layer * own.weights).sum(dim=(1, 2)) - own.offset for layer, own in zip(layers, held, strict=True)]
    return torch.stack(parts).mean(dim=0)
