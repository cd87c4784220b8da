"""M-Attack: crops of the image towards crops of a target image, on several encoders.

Li et al., "A Frustratingly Simple Yet Highly Effective Attack Baseline: Over 90% Success Rate Against the Strong
Black-box Models of GPT-4.5/4o/o1", arXiv 2503.10635: at every step a random crop of the image and one of the target,
both resized to the whole, and the cosine of their embeddings. Departs from the paper: one crop is drawn for the whole
batch, the search starts at random, and without a target each image goes towards the next one of the set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from firmground.attacks.evasion._embedding import similarity, targets_for
from firmground.attacks.evasion._search import Objective, Search, run
from firmground.bounds import check_bounds
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders, Surrogate
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class MAttack(Search):
    """Makes the cosine between crops of the image and of its target large; `crops` is the range of their area."""

    name: ClassVar[str] = "m-attack"
    paper: ClassVar[str] = "Li et al., arXiv 2503.10635"
    steps: int = 300
    crops: tuple[float, float] = (0.5, 0.9)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, crops=(0.01, 1.0))

    def perturb(
        self,
        encoder: Encoders,
        images: Images,
        *,
        target: Images | None = None,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1], towards `target` images in turn; see `Perturbed`.

        Raises `DataError` where there is no target.
        """

        def begin(surrogate: Surrogate, clean: Images, target: Images) -> Objective:
            def objective(images: Images) -> torch.Tensor:
                with torch.no_grad():
                    wanted = surrogate.embed(cropped(target, self.crops, rng))
                return -similarity(surrogate.embed(cropped(images, self.crops, rng)), wanted)

            return objective

        goal = targets_for(images, target)
        return run(self, encoder, images, begin, rng=rng, watch=watch, target=goal)


def cropped(images: Images, areas: tuple[float, float], rng: torch.Generator) -> Images:
    """A part of the images with their own proportions, of a random share of their area, resized to their size."""
    share, down, across = torch.rand(3, generator=rng, device=rng.device).tolist()
    height, width = images.shape[-2:]
    scale = (areas[0] + (areas[1] - areas[0]) * share) ** 0.5
    rows, columns = max(1, round(scale * height)), max(1, round(scale * width))
    top, left = round(down * (height - rows)), round(across * (width - columns))
    part = images[..., top : top + rows, left : left + columns]
    return F.interpolate(part, size=(height, width), mode="bilinear", align_corners=False)
