"""Dispersion reduction: makes a feature map flat, so that nothing stands out in it.

Lu et al., "Enhancing Cross-Task Black-Box Transferability of Adversarial Examples with Dispersion Reduction", CVPR
2020, arXiv 1911.11616: the standard deviation of an intermediate feature map is made small. The code of PRM's authors
has its sign the other way round, and raises it. Departs from the paper: `layers` are half way through the tower by
default, whatever the tower is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.attacks.evasion._layers import Tokens, layers_of
from firmground.attacks.evasion._search import Objective, Search, run
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders, Surrogate
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class DR(Search):
    """Makes the standard deviation of features small; by default of the layer in the middle."""

    name: ClassVar[str] = "dr"
    paper: ClassVar[str] = "Lu et al., CVPR 2020, arXiv 1911.11616"
    layers: tuple[int, ...] | None = None
    tokens: Tokens = "patches"

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""

        def begin(surrogate: Surrogate, clean: Images, target: Images) -> Objective:
            middle = (len(surrogate.features(clean).layers) // 2,)
            chosen = middle if self.layers is None else self.layers
            return lambda images: dispersion(layers_of(surrogate, images, chosen, self.tokens))

        return run(self, encoder, images, begin, rng=rng, watch=watch)


def dispersion(layers: list[torch.Tensor]) -> torch.Tensor:
    """The sum over layers of the standard deviation of all of a layer's numbers, (batch,)."""
    return torch.stack([layer.flatten(1).std(dim=1) for layer in layers]).sum(dim=0)
