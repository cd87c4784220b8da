"""95 % confidence intervals: Wilson's for a rate over samples, Student's for a mean, else a bootstrap."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy
import torch
from scipy.stats import binomtest, t

from firmground.errors import DataError
from firmground.types import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

RESAMPLES = 2000


def wilson(hits: int, count: int) -> Interval:
    """The rate `hits / count` of independent samples. Nothing is known of a rate of no samples: 0, in [0, 1].

    >>> wilson(0, 100).high < 0.04
    True
    """
    if count == 0:
        return Interval(value=0.0, low=0.0, high=1.0, count=0)
    found = binomtest(hits, count).proportion_ci(method="wilson")
    return Interval(value=hits / count, low=float(found.low), high=float(found.high), count=count)


def rate(outcomes: Iterable[bool]) -> Interval:
    """The share of true outcomes, `wilson`'s interval; `DataError` where there is none."""
    found = [bool(outcome) for outcome in outcomes]
    if not found:
        raise DataError("a rate needs at least one outcome, got none")
    return wilson(sum(found), len(found))


def mean(values: Iterable[float]) -> Interval:
    """The mean with Student's t interval; of one value, the interval is unbounded."""
    found = [float(value) for value in values]
    if not found:
        raise DataError("a mean needs at least one value, got none")
    count = len(found)
    centre = math.fsum(found) / count
    if count == 1:
        return Interval(value=centre, low=-math.inf, high=math.inf, count=1)
    deviation = math.sqrt(math.fsum((value - centre) ** 2 for value in found) / (count - 1))
    half = float(t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return Interval(value=centre, low=centre - half, high=centre + half, count=count)


def clustered(hits: Sequence[int], chances: Sequence[int], rng: torch.Generator) -> Interval:
    """The rate sum(hits) / sum(chances) where one sample (text, sentence) gives several dependent chances.

    Bootstrap over samples. At a rate of 0 or 1, where a bootstrap sees no spread, Wilson's over the samples with a
    chance. `count` is the number of chances.
    """
    total = sum(chances)
    if total == 0:
        return wilson(0, 0)
    share = sum(hits) / total
    samples = sum(chance > 0 for chance in chances)
    if share in (0.0, 1.0):
        edge = wilson(round(share * samples), samples)
        return Interval(value=share, low=edge.low, high=edge.high, count=total)
    counts = torch.tensor([hits, chances], dtype=torch.float64).T.numpy()
    low, high = bootstrap(counts, lambda sums: sums[:, 0] / numpy.maximum(sums[:, 1], 1), rng)
    return Interval(value=share, low=low, high=high, count=total)


def bootstrap(
    counts: numpy.ndarray, statistic: Callable[[numpy.ndarray], numpy.ndarray], rng: torch.Generator
) -> tuple[float, float]:
    """Percentile interval of a statistic of summed counts.

    `counts` is (samples, kinds); `statistic` takes sums, (resamples, kinds), and returns (resamples,).
    """
    draws = torch.multinomial(torch.ones(RESAMPLES, len(counts)), len(counts), replacement=True, generator=rng)
    weights = torch.zeros(RESAMPLES, len(counts), dtype=torch.float64)
    weights.scatter_add_(1, draws, torch.ones_like(draws, dtype=torch.float64))
    low, high = numpy.quantile(statistic(weights.numpy() @ counts), [0.025, 0.975])
    return float(low), float(high)


def macro_f1_interval(truth: Sequence[int], found: Sequence[int], rng: torch.Generator) -> Interval:
    """Macro-F1 (scikit-learn's) over the labels that occur in either, with a bootstrap interval."""
    from sklearn.metrics import confusion_matrix, f1_score

    labels = sorted({*truth, *found})
    value = float(f1_score(truth, found, labels=labels, average="macro", zero_division=0.0))
    cells = confusion_matrix(truth, found, labels=labels)
    shares = torch.tensor(cells.flatten() / cells.sum(), dtype=torch.float64).expand(RESAMPLES, -1)
    draws = torch.multinomial(shares, len(truth), replacement=True, generator=rng)
    resampled = torch.zeros_like(shares).scatter_add_(1, draws, torch.ones_like(draws, dtype=torch.float64))
    tables = resampled.view(RESAMPLES, len(labels), len(labels))
    agreed = tables.diagonal(dim1=1, dim2=2)
    present = tables.sum(1) + tables.sum(2)
    scores = (2 * agreed / present.clamp(min=1)).sum(1) / (present > 0).sum(1)
    low, high = (float(scores.quantile(q)) for q in (0.025, 0.975))
    return Interval(value=value, low=min(low, value), high=max(high, value), count=len(truth))
