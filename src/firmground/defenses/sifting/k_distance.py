"""The distance of an image to its k-th neighbour: the plainest measure of a sparse neighbourhood.

Baseline of Huang et al., "Detecting Backdoor Samples in Contrastive Language Image Pretraining", ICLR 2025. Departs
from it: neighbours come from one random sample of the set instead of the sample's own batch, and a sample never counts
itself (the authors' code takes the (k+1)-th neighbour).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from firmground.defenses.sifting._neighbours import sift_by_neighbours
from firmground.types import Suspicion, Watch, ignore

if TYPE_CHECKING:
    import torch

    from firmground.data.pairs import PairSet
    from firmground.models.dual import DualEncoder


@dataclass(frozen=True, kw_only=True)
class KDistance:
    """Scores a pair by how far its image's embedding lies from the k-th nearest in a sample of the set.

    `sample` is how many pairs neighbours are sought among; fewer than `k` poisoned ones may be expected in it.
    """

    name: ClassVar[str] = "k-distance"
    paper: ClassVar[str] = "Huang et al. (ICLR 2025), a baseline there"

    k: int = 16
    sample: int = 1024
    batch_size: int = 128

    def sift(self, encoder: DualEncoder, pairs: PairSet, *, rng: torch.Generator, watch: Watch = ignore) -> Suspicion:
        """Scores every pair of which the image can be read; `encoder` may itself be poisoned, best by these pairs."""
        return sift_by_neighbours(self, encoder, pairs, lambda _, near: near.distances[:, -1], rng=rng, watch=watch)
