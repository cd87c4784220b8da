"""Intermediate-level perturbation decay: the gradient is taken where the change of a middle layer is shrunk.

Li et al., "Improving Adversarial Transferability via Intermediate-level Perturbation Decay", NeurIPS 2023, arXiv
2304.13410: the output z of a middle block is replaced by gamma z + (1 - gamma) z0, z0 that of the clean image; on the
image embedding and with momentum. Departs from the paper: z0 has no noise, and the search starts at random, see `mi`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from firmground.attacks.evasion._embedding import similarity
from firmground.attacks.evasion._layers import block_of
from firmground.attacks.evasion._search import Objective, Search, run
from firmground.bounds import SHARE, check_bounds
from firmground.models.surrogates import kept, replaced
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders, Surrogate
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class ILPD(Search):
    """Makes the cosine between the embeddings small, with what `block` adds shrunk to a share `gamma`.

    Blocks count from 0; by default it is the one in the middle.
    """

    name: ClassVar[str] = "ilpd"
    paper: ClassVar[str] = "Li et al., NeurIPS 2023, arXiv 2304.13410"
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "momentum"
    block: int | None = None
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, gamma=SHARE)

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""
        return run(self, encoder, images, self._begin, rng=rng, watch=watch)

    def _begin(self, surrogate: Surrogate, clean: Images, target: Images) -> Objective:
        block = block_of(surrogate, self.block, self.name)
        with kept([block]) as outputs:
            before = surrogate.embed(clean)
        held = outputs[0]

        def objective(images: Images) -> torch.Tensor:
            with replaced(block, lambda output: held + self.gamma * (output - held)):
                return similarity(surrogate.embed(images), before)

        return objective
