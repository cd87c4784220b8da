"""Scale invariance: the mean gradient over darker and darker copies of the image.

Lin et al., "Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks", ICLR 2020, arXiv 1908.06281,
eq. 9 with copies x / 2^i, on the image embedding and with Nesterov's momentum. Departs from the paper: the search
starts at random, see `mi`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, ClassVar, Literal

from firmground.attacks.evasion._embedding import away_through
from firmground.attacks.evasion._search import Search, run
from firmground.bounds import check_bounds
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    import torch

    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class SI(Search):
    """Makes the cosine between the embeddings small, on `copies` of 1, 1/2, 1/4 ... of the brightness at every step."""

    name: ClassVar[str] = "si"
    paper: ClassVar[str] = "Lin et al., ICLR 2020, arXiv 1908.06281"
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "nesterov"
    copies: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, copies=(1, 8))

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""
        halvings = cycle(range(self.copies))
        darker = away_through(lambda images: images / 2 ** next(halvings))
        return run(self, encoder, images, darker, rng=rng, watch=watch, draws=self.copies)
