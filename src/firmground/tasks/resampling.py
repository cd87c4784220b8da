"""Intervals by resampling images, and relative drops between two runs on the same images.

A bootstrap that draws the same images for a clean and for an attacked run (the same seed, the same number of images)
gives pairs of replicates; the drop's interval is that of the pairs, and knows that the runs share their images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy
import numpy.typing as npt
import torch

from firmground.errors import DataError
from firmground.intervals import wilson
from firmground.types import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence


Floats = npt.NDArray[numpy.float64]
RESAMPLES = 500


def image_weights(count: int, rng: torch.Generator) -> Floats:
    """How often each image is drawn in each of `RESAMPLES` bootstrap samples, (resamples, images)."""
    draws = torch.randint(count, (RESAMPLES, count), generator=rng)
    weights = torch.zeros(RESAMPLES, count, dtype=torch.float64)
    weights.scatter_add_(1, draws, torch.ones_like(draws, dtype=torch.float64))
    return weights.numpy()


def percentile(value: float, replicates: Floats, count: int) -> Interval:
    """The value with the central 95 % of its replicates; those that are not numbers are left out."""
    kept = replicates[numpy.isfinite(replicates)]
    low, high = numpy.quantile(kept, [0.025, 0.975]) if len(kept) else (value, value)
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value), count=count)


def share(hits: Floats, chances: Floats, weights: Floats) -> tuple[Interval, Floats]:
    """The rate sum(hits) / sum(chances) over images, and its replicates; at 0 or 1, Wilson's over images."""
    total = float(chances.sum())
    if total == 0:
        return wilson(0, 0), numpy.zeros(len(weights))
    value = float(hits.sum()) / total
    replicates = (weights @ hits) / numpy.maximum(weights @ chances, 1e-12)
    if value in (0.0, 1.0):
        asked = int((chances > 0).sum())
        edge = wilson(round(value * asked), asked)
        return Interval(value=value, low=edge.low, high=edge.high, count=round(total)), replicates
    return percentile(value, replicates, round(total)), replicates


def relative_drop(
    clean: float, attacked: float, clean_replicates: Sequence[float], attacked_replicates: Sequence[float], count: int
) -> Interval:
    """1 - attacked / clean with the interval of the paired replicates; `DataError` where they are no pairs.

    Both runs must have drawn the same images: the same `rng` stream over the same number of images.
    """
    if len(clean_replicates) != len(attacked_replicates) or not len(clean_replicates):
        raise DataError(
            f"expected as many replicates of the clean as of the attacked run, got {len(clean_replicates)} and "
            f"{len(attacked_replicates)}; evaluate both with generators of one seed"
        )
    if clean <= 0:
        raise DataError(f"the clean score is {clean:g}; a relative drop needs a victim that is good for something")
    before, after = numpy.asarray(clean_replicates), numpy.asarray(attacked_replicates)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        drops = 1 - after / before
    return percentile(1 - attacked / clean, drops, count)
