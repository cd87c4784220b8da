"""Translation invariance: the gradient is blurred, as if it came from shifted copies of the image.

Dong et al., "Evading Defenses to Transferable Adversarial Examples by Translation-Invariant Attacks", CVPR 2019, arXiv
1904.02884, eq. 8, on the image embedding and with momentum. Departs from the paper: the search starts at random, see
`mi`, and the kernel is no larger than a quarter of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F

from firmground.attacks.evasion._embedding import away
from firmground.attacks.evasion._search import Search, run
from firmground.bounds import FROM_1, check_bounds
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class TI(Search):
    """Makes the cosine between the embeddings small, by gradients blurred with a Gaussian `kernel` pixels wide."""

    name: ClassVar[str] = "ti"
    paper: ClassVar[str] = "Dong et al., CVPR 2019, arXiv 1904.02884"
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "momentum"
    kernel: int = 15

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, kernel=FROM_1)

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""
        reach = min(self.kernel, max(images.shape[-2:]) // 4) // 2
        return run(self, encoder, images, away, rng=rng, watch=watch, shape=lambda gradient: blurred(gradient, reach))


def blurred(gradient: torch.Tensor, reach: int) -> torch.Tensor:
    """The gradient under a Gaussian that ends `reach` pixels off, at three of its standard deviations."""
    steps = torch.arange(-reach, reach + 1, device=gradient.device, dtype=gradient.dtype)
    weights = torch.exp(-0.5 * (3 * steps / max(reach, 1)) ** 2)
    weights = (weights / weights.sum()).view(1, 1, -1, 1).expand(3, 1, -1, 1)
    down = F.conv2d(gradient, weights, padding=(reach, 0), groups=3)
    return F.conv2d(down, weights.transpose(2, 3), padding=(0, reach), groups=3)
