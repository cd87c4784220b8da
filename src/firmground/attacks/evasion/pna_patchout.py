"""Pay No Attention and PatchOut: gradients leave the attention maps out, and a step changes some patches only.

Wei et al., "Towards Transferable Adversarial Attacks on Vision Transformers", AAAI 2022, arXiv 2109.04176, on the image
embedding and with momentum. Departs from the paper: its term that enlarges the change is left out (signed steps reach
the bound without it), and the search starts at random, see `mi`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F

from firmground.attacks.evasion._embedding import away
from firmground.attacks.evasion._search import Search, run
from firmground.attacks.evasion._transformers import QUERIES_AND_KEYS, modules_named, outputs_changed
from firmground.bounds import SHARE_ABOVE_0, check_bounds
from firmground.models.surrogates import surrogates_of
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class PNAPatchOut(Search):
    """Makes the cosine between the embeddings small, a share `patches` of the patches at a step; ViTs only."""

    name: ClassVar[str] = "pna-patchout"
    paper: ClassVar[str] = "Wei et al., AAAI 2022, arXiv 2109.04176"
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "momentum"
    patches: float = 130 / 196

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, patches=SHARE_ABOVE_0)

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`.

        Raises `DataError`, and `UnsupportedModelError` for an encoder that is no transformer.
        """
        towers = surrogates_of(encoder)
        side = towers[0].patch
        with ExitStack() as stack:
            for tower in towers:
                found = modules_named(tower, QUERIES_AND_KEYS, self.name)
                stack.enter_context(outputs_changed(found, torch.Tensor.detach))
            return run(
                self, towers, images, away, rng=rng, watch=watch,
                shape=lambda gradient: gradient * some_patches(gradient, side, self.patches, rng),
            )  # fmt: skip


def some_patches(gradient: torch.Tensor, side: int, share: float, rng: torch.Generator) -> torch.Tensor:
    """Ones at a share of an image's patches, (batch, 1, height, width), drawn for each image; else zeros."""
    height, width = gradient.shape[-2:]
    rows, columns = -(-height // side), -(-width // side)
    drawn = torch.rand(len(gradient), rows * columns, generator=rng, device=rng.device)
    kept = drawn.argsort(dim=1).argsort(dim=1) < max(1, round(share * rows * columns))
    grid = kept.view(-1, 1, rows, columns).to(gradient)
    return F.interpolate(grid, scale_factor=side, mode="nearest")[..., :height, :width]
