"""Nesterov's momentum: the gradient is taken where the momentum will lead.

Lin et al., "Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks", ICLR 2020, arXiv 1908.06281,
its first half, on the image embedding. Departs from the paper: the search starts at random, see `mi`, and looks ahead
no further than epsilon. (The paper takes ten steps of a tenth of epsilon; momentum that has grown over more or larger
ones leads far out of the ball, and the gradient there says little about images inside.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from firmground.attacks.evasion.pgd import PGD


@dataclass(frozen=True, kw_only=True)
class NI(PGD):
    """Makes the cosine between the embeddings small, as PGD does, with Nesterov's momentum."""

    name: ClassVar[str] = "ni"
    paper: ClassVar[str] = "Lin et al., ICLR 2020, arXiv 1908.06281"
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "nesterov"
