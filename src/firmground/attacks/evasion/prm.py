"""Patch representation misalignment: turns the tokens of every layer away from what they were.

Zhang et al. "As Firm As Their Foundations: Can open-sourced foundation models be used to create adversarial examples
for downstream tasks?", BMVC 2024, arXiv 2403.12693. Sum over the outputs F_0 ... F_L of the patch embedding and of each
block of the mean over all tokens of cos(F_l(x'), F_l(x)), made small by 250 steps of AdamW. Of a convolutional tower
the cosine is taken over the channels at every place of every stage. Departs from the authors' code: the search starts
at random (at the clean image the cosine is stationary), the projection is outside of the forward pass (a clamp in it
kills the gradient of every pixel beyond), Adam goes without weight decay, and the result is rounded to 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F

from firmground.attacks.evasion._layers import Tokens, cosines, layers_of, units_of
from firmground.attacks.evasion._search import Objective, Search, run
from firmground.bounds import check_bounds
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders, Surrogate
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class PRM(Search):
    """Makes the cosine between clean and perturbed tokens small, on all `layers` or some.

    `tokens` are all, the patches or the class token. With `scales`, both images are resized by one share, drawn from
    that range at every step; the clean image then costs a forward pass a step more.
    """

    name: ClassVar[str] = "prm"
    paper: ClassVar[str] = "Zhang et al., BMVC 2024, arXiv 2403.12693"
    steps: int = 250
    step_size: float = 0.5 / 255
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "adam"
    layers: tuple[int, ...] | None = None
    tokens: Tokens = "all"
    scales: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, scales=(0.05, 4.0))

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""

        def begin(surrogate: Surrogate, clean: Images, target: Images) -> Objective:
            if self.scales is not None:
                return self._scaled(surrogate, clean, self.scales, rng)
            units = units_of(layers_of(surrogate, clean, self.layers, self.tokens))
            return lambda images: misalignment(layers_of(surrogate, images, self.layers, self.tokens), units)

        return run(self, encoder, images, begin, rng=rng, watch=watch)

    def _scaled(
        self, surrogate: Surrogate, clean: Images, scales: tuple[float, float], rng: torch.Generator
    ) -> Objective:
        def objective(images: Images) -> torch.Tensor:
            share = scales[0] + (scales[1] - scales[0]) * float(torch.rand((), generator=rng, device=rng.device))
            with torch.no_grad():
                units = units_of(layers_of(surrogate, resized(clean, share), self.layers, self.tokens))
            return misalignment(layers_of(surrogate, resized(images, share), self.layers, self.tokens), units)

        return objective


def misalignment(layers: list[torch.Tensor], units: list[torch.Tensor]) -> torch.Tensor:
    """The sum over layers of the mean cosine over places, (batch,)."""
    return torch.stack([cosines(layer, unit).mean(dim=1) for layer, unit in zip(layers, units, strict=True)]).sum(dim=0)


def resized(images: Images, share: float) -> Images:
    """Images with both sides of that share, rounded to pixels."""
    height, width = (max(1, round(share * side)) for side in images.shape[-2:])
    return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
