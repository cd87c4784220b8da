"""Rates and means with their 95 % confidence intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from firmground.errors import DataError
from firmground.types import Interval

if TYPE_CHECKING:
    from collections.abc import Iterable

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


def rate(outcomes: Iterable[bool]) -> Interval:
    """The share of true outcomes with Wilson's score interval (Wilson 1927), without continuity correction."""
    found = [bool(outcome) for outcome in outcomes]
    if not found:
        raise DataError("a rate needs at least one outcome, got none")
    count, share = len(found), sum(found) / len(found)
    shrunk = share + Z95**2 / (2 * count)
    spread = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    scale = 1 + Z95**2 / count
    low, high = (shrunk - spread) / scale, (shrunk + spread) / scale
    return Interval(value=share, low=max(0.0, min(low, share)), high=min(1.0, max(high, share)), count=count)


def mean(values: Iterable[float]) -> Interval:
    """The mean with Student's t interval; of one value, the interval is unbounded."""
    found = [float(value) for value in values]
    if not found:
        raise DataError("a mean needs at least one value, got none")
    count = len(found)
    centre = math.fsum(found) / count
    if count == 1:
        return Interval(value=centre, low=-math.inf, high=math.inf, count=1)
    from scipy.stats import t

    deviation = math.sqrt(math.fsum((value - centre) ** 2 for value in found) / (count - 1))
    half = float(t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return Interval(value=centre, low=centre - half, high=centre + half, count=count)
