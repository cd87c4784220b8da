"""SLOF: how much sparser an image's neighbourhood is than those of its neighbours.

Schubert et al., "Local outlier detection reconsidered", DMKD 2014; for poisoned pairs: Huang et al., "Detecting
Backdoor Samples in Contrastive Language Image Pretraining", ICLR 2025. SLOF(x) is the mean over the k nearest o of
d_k(x) / d_k(o), d_k the distance to the k-th neighbour. Departs from the paper as `k_distance` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from firmground.defenses.sifting._neighbours import Near, Sample, sift_by_neighbours
from firmground.types import Suspicion, Watch, ignore

if TYPE_CHECKING:
    import torch

    from firmground.data.pairs import PairSet
    from firmground.models.dual import DualEncoder


@dataclass(frozen=True, kw_only=True)
class SLOF:
    """Scores a pair by how much sparser its image lies than the image's neighbours do; 1 is ordinary.

    `sample` is how many pairs neighbours are sought among; fewer than `k` poisoned ones may be expected in it.
    """

    name: ClassVar[str] = "slof"
    paper: ClassVar[str] = "Huang et al. (ICLR 2025); SLOF: Schubert et al. (2014)"

    k: int = 16
    sample: int = 1024
    batch_size: int = 128

    def sift(self, encoder: DualEncoder, pairs: PairSet, *, rng: torch.Generator, watch: Watch = ignore) -> Suspicion:
        """Scores every pair of which the image can be read; `encoder` may itself be poisoned, best by these pairs."""
        return sift_by_neighbours(self, encoder, pairs, relative_reach, rng=rng, watch=watch)


def relative_reach(sample: Sample, near: Near) -> torch.Tensor:
    """SLOF of queries, (queries,)."""
    return (near.distances[:, -1:] / sample.reach[near.places]).mean(dim=1)
