"""Does the image tower hold what it holds for clean images, before it says where the image belongs?

Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS
2018: the Mahalanobis distance of pooled hidden states from their law on clean images, sqrt((h - m)' S^-1 (h - m)). A
poisoned tower embeds a triggered image as one of the target's, but on another way: of its last hidden state the
projection reads one direction that the target's images and the trigger share, while the trigger's others stay, and no
clean image has them.

Departs from the paper: one layer, the last, where the paper weighs all by examples of what is to be found; one law
instead of one a class, for the target class is where triggered images go; no gradient step on the input; and the
covariance is shrunk by its size alone (Chen et al., "Shrinkage Algorithms for MMSE Covariance Estimation", IEEE TSP
2010, eq. 23), so that it can be had from few images. The threshold comes from clean images alone, each held against the
law of others (`folds`): those that made a law lie closer to it.

Layer, pooling and law were chosen on six poisoned encoders (BadNet and Blended of both worlds, text on scenes, stripes
on Fashion-MNIST); `benchmarks/clip_guard` has the others, and what it says of clean images that were changed. It knows
nothing of triggers: it flags whatever the tower has not met, and an attacker who knows it can train for it, who there
brought one trigger of two past it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.defenses.guards.fitted_images import FEWEST, FittedImageGuard, calibrated, judged, shuffled
from firmground.errors import DataError
from firmground.models.glances import pooled
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.dual import DualEncoder
    from firmground.types import Images

LEAST = 1e-12  # variance: of a set of equal images there is none


@dataclass(frozen=True, kw_only=True)
class Mahalanobis:
    """Flags images whose pooled hidden state lies far from those of clean images, for how these vary.

    `layer` counts hidden states, 0 the first, -1 the last. To calibrate, each of `folds` parts of the clean images is
    held against the law of the others. `flag_rate` is the share of clean images that may be flagged.
    """

    name: ClassVar[str] = "mahalanobis"
    paper: ClassVar[str] = "Lee et al. (NeurIPS 2018)"

    layer: int = -1
    folds: int = 5
    flag_rate: float = 0.02
    batch_size: int = 64

    def fit(
        self, encoder: DualEncoder, data: LabelledImages, *, rng: torch.Generator, watch: Watch = ignore
    ) -> FittedImageGuard:
        """Takes at least 40 clean images of the kind that will come; their labels are not looked at."""
        if not 2 <= self.folds <= FEWEST:
            raise DataError(f"expected 2 to {FEWEST} folds, got {self.folds}")
        rows = shuffled(data, FEWEST, rng)
        states = judged(
            data, rows, lambda images: self._state(encoder, images), batch_size=self.batch_size, watch=watch
        )
        return calibrated(self, encoder, data, held_out(states, self.folds), law(states))

    def judge(self, encoder: DualEncoder, tensors: dict[str, torch.Tensor]) -> Callable[[Images], torch.Tensor]:
        """What scores images by `mean`, (width,), and `whitening`, (width, width), of clean states."""
        mean, whitening = tensors["mean"].cpu(), tensors["whitening"].cpu()
        if whitening.shape != (*mean.shape, *mean.shape):
            raise DataError(f"a mean of {tuple(mean.shape)} does not fit a whitening of {tuple(whitening.shape)}")
        return lambda images: distances(self._state(encoder, images), mean=mean, whitening=whitening)

    @torch.inference_mode()
    def _state(self, encoder: DualEncoder, images: Images) -> torch.Tensor:
        return pooled(encoder, images, self.layer).cpu()


def distances(states: torch.Tensor, *, mean: torch.Tensor, whitening: torch.Tensor) -> torch.Tensor:
    """How far states, (batch, width), lie from a law, (batch,). Raises `DataError` for a law of another width."""
    if states.shape[1:] != mean.shape:
        raise DataError(f"a hidden state of {states.shape[1]} numbers does not fit a law of {len(mean)}")
    found: torch.Tensor = torch.linalg.vector_norm((states - mean) @ whitening.T, dim=1)
    return found


def held_out(states: torch.Tensor, folds: int) -> torch.Tensor:
    """How far each of the states, (count, width), lies from the law of those in other folds than its own, (count,)."""
    fold = torch.arange(len(states)) % folds
    found = states.new_empty(len(states))
    for number in range(folds):
        own = fold == number
        found[own] = distances(states[own], **law(states[~own]))
    return found


def law(states: torch.Tensor) -> dict[str, torch.Tensor]:
    """The `mean` of states, (count, width), and the `whitening` W with W'W the inverse of their shrunk covariance.

    S = (1 - r) C + r t I, C the covariance of n states of p numbers, t the mean of its diagonal, and r the least of 1
    and (mean of C's squares + t^2) / ((n + 1) (mean of C's squares - t^2 / p)).
    """
    rows = states.double()
    count, width = rows.shape
    raw = rows.T.cov(correction=0).reshape(width, width)
    level, squares = raw.diagonal().mean().clamp_min(LEAST), raw.square().mean()
    apart = (count + 1) * (squares - level**2 / width)
    share = ((squares + level**2) / apart.clamp_min(torch.finfo(torch.double).tiny)).clamp_max(1)
    unit = torch.eye(width, dtype=torch.double)
    shrunk = (1 - share) * raw + share * level * unit
    whitening = torch.linalg.solve_triangular(torch.linalg.cholesky(shrunk), unit, upper=False)
    return {"mean": rows.mean(dim=0).float(), "whitening": whitening.float()}
