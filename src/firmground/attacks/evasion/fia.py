"""Feature importance-aware attack: middle features that bring masked images back to their embedding are made small.

Wang et al., "Feature Importance-aware Transferable Adversarial Attacks", ICCV 2021, arXiv 2107.14185: the importance
Delta of a middle layer's features f is their gradient, averaged over copies of the image of which pixels are dropped at
random (eq. 3), and the sum of Delta * f is made small (eq. 4). Departs from the paper: without labels, the gradient is
that of the cosine with the clean image's embedding in place of the true class's logit, and the search starts at random,
see `mi`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from firmground.attacks.evasion._embedding import similarity
from firmground.attacks.evasion._layers import block_of
from firmground.attacks.evasion._search import Objective, Search, run
from firmground.bounds import FROM_1, check_bounds
from firmground.models.surrogates import kept
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders, Surrogate
    from firmground.types import Embeddings, Images


@dataclass(frozen=True, kw_only=True)
class FIA(Search):
    """Makes important features of `block` small; by default the block in the middle, counted from 0.

    `copies` masked images give the importance; of each, a share `dropped` of the pixels is dropped.
    """

    name: ClassVar[str] = "fia"
    paper: ClassVar[str] = "Wang et al., ICCV 2021, arXiv 2107.14185"
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "momentum"
    block: int | None = None
    copies: int = 30
    dropped: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, copies=FROM_1, dropped=(0.01, 0.99))

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""

        def begin(surrogate: Surrogate, clean: Images, target: Images) -> Objective:
            """The weighed outputs of the block, for the surrogate and images that the search begins with."""
            block = block_of(surrogate, self.block, self.name)
            weights = self._importance(surrogate, block, clean, surrogate.embed(clean), rng)

            def objective(images: Images) -> torch.Tensor:
                with kept([block]) as outputs:
                    surrogate.embed(images)
                return (weights * outputs[0]).flatten(1).sum(dim=1)

            return objective

        return run(self, encoder, images, begin, rng=rng, watch=watch)

    def _importance(
        self, surrogate: Surrogate, block: torch.nn.Module, clean: Images, before: Embeddings, rng: torch.Generator
    ) -> torch.Tensor:
        """What the block's outputs weigh: their mean gradient over masked copies, of length one for every image."""
        total = torch.zeros(())
        for _ in range(self.copies):
            draws = torch.rand(clean.shape, generator=rng, device=rng.device).to(clean)
            with torch.enable_grad(), kept([block]) as outputs:
                masked = (clean * (draws >= self.dropped)).requires_grad_()
                close = similarity(surrogate.embed(masked), before).sum()
                (gradient,) = torch.autograd.grad(close, outputs[0])
            total = total.to(gradient) + gradient
        length = total.flatten(1).norm(dim=1).clamp_min(torch.finfo(total.dtype).tiny)
        weights: torch.Tensor = total / length.view(-1, *[1] * (total.dim() - 1))
        return weights
