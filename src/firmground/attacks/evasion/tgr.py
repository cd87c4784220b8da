"""Token gradient regularisation: extreme gradients of tokens are left out on their way back.

Zhang et al., "Transferable Adversarial Attacks on Vision Transformers with Token Gradient Regularization", CVPR 2023,
arXiv 2303.15754: in every block, for each channel of queries, keys and values (weight 0.75) and of the MLP's output
(weight 0.5), the gradients of the tokens with the largest and the smallest one become zero; on the image embedding and
with momentum. Departs from the paper: the attention map itself, which fused attention never shows, is not regularised,
and the search starts at random, see `mi`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from firmground.attacks.evasion._embedding import away
from firmground.attacks.evasion._search import Search, run
from firmground.attacks.evasion._transformers import (
    MLP,
    QUERIES_AND_KEYS,
    VALUES,
    modules_named,
    outputs_changed,
    with_gradient,
)
from firmground.bounds import FROM_0, check_bounds
from firmground.models.surrogates import surrogates_of
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    import torch

    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class TGR(Search):
    """Makes the cosine between the embeddings small, by gradients without extreme tokens; ViTs only."""

    name: ClassVar[str] = "tgr"
    paper: ClassVar[str] = "Zhang et al., CVPR 2023, arXiv 2303.15754"
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "momentum"
    attention_weight: float = 0.75
    mlp_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, attention_weight=FROM_0, mlp_weight=FROM_0)

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`.

        Raises `DataError`, and `UnsupportedModelError` for an encoder that is no transformer.
        """
        towers = surrogates_of(encoder)
        with ExitStack() as stack:
            for tower in towers:
                for names, weight in (((*QUERIES_AND_KEYS, *VALUES), self.attention_weight), (MLP, self.mlp_weight)):
                    found = modules_named(tower, names, self.name)
                    stack.enter_context(outputs_changed(found, with_gradient(partial(regularised, weight=weight))))
            return run(self, towers, images, away, rng=rng, watch=watch)


def regularised(gradient: torch.Tensor, weight: float) -> torch.Tensor:
    """A gradient, (batch, tokens, width), times a weight, and zero at each channel's largest and smallest token."""
    kept = gradient * weight
    kept.scatter_(1, gradient.argmax(dim=1, keepdim=True), 0)
    return kept.scatter_(1, gradient.argmin(dim=1, keepdim=True), 0)
