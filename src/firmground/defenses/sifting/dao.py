"""DAO: SLOF, in which every neighbour counts by the dimension that the data have around it.

Anderberg et al., "Dimensionality-Aware Outlier Detection", SDM 2024; for poisoned pairs: Huang et al., "Detecting
Backdoor Samples in Contrastive Language Image Pretraining", ICLR 2025. In m dimensions a ball of twice the radius holds
2^m times as many points, so that d_k(x) / d_k(o) is taken to the power LID(o), the local intrinsic dimension, estimated
by maximum likelihood (Levina and Bickel, 2004): LID(o) = -1 / mean_i log(d_i(o) / d_k(o)).

Departs from the papers: the mean is over logarithms, LID(o) log(d_k(x) / d_k(o)), as in the code of Huang et al., and
so that no single neighbour drowns the rest; LID is estimated without counting o its own neighbour, as that code does;
and as `k_distance` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from firmground.defenses.sifting._neighbours import SMALLEST, Near, Sample, sift_by_neighbours
from firmground.types import Suspicion, Watch, ignore

if TYPE_CHECKING:
    import torch

    from firmground.data.pairs import PairSet
    from firmground.models.dual import DualEncoder


@dataclass(frozen=True, kw_only=True)
class DAO:
    """Scores a pair by how much sparser its image lies than its neighbours do, in their local dimension; 0 is ordinary.

    `sample` is how many pairs neighbours are sought among; fewer than `k` poisoned ones may be expected in it.
    """

    name: ClassVar[str] = "dao"
    paper: ClassVar[str] = "Huang et al. (ICLR 2025); DAO: Anderberg et al. (2024)"

    k: int = 16
    sample: int = 1024
    batch_size: int = 128

    def sift(self, encoder: DualEncoder, pairs: PairSet, *, rng: torch.Generator, watch: Watch = ignore) -> Suspicion:
        """Scores every pair of which the image can be read; `encoder` may itself be poisoned, best by these pairs."""
        return sift_by_neighbours(self, encoder, pairs, dimensional_reach, rng=rng, watch=watch)


def dimension(sample: Sample) -> torch.Tensor:
    """The local intrinsic dimension at every point of a sample, (count,)."""
    shares = sample.near.distances / sample.reach[:, None]
    logs = shares.clamp(SMALLEST, 1.0).log().mean(dim=1)
    return -1 / logs.clamp_max(-1e-3)  # k neighbours at one distance: as good as no bound


def dimensional_reach(sample: Sample, near: Near) -> torch.Tensor:
    """DAO of queries, (queries,)."""
    own = near.distances[:, -1:].clamp_min(SMALLEST * sample.reach.min())
    return (dimension(sample)[near.places] * (own / sample.reach[near.places]).log()).mean(dim=1)
