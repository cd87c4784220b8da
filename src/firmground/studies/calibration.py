"""Thresholds from clean encoders only, and what they are worth on others.

A scan's score is the largest of very many, so clean encoders' scores may follow Gumbel's law; or, where differences are
taken, a normal one. Each score is given the law under which its clean values are likelier, and the threshold is where
that law leaves the wanted share of false alarms. No planted encoder takes part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from scipy import stats

from firmground.errors import DataError
from firmground.intervals import rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from firmground.types import Interval

FEWEST = 8  # clean scores, below which no law can be fitted


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """One threshold a score; an encoder is flagged where any score exceeds its own.

    `count` clean encoders and the wanted `false_alarm_rate` of all scores together made them.
    """

    values: Mapping[str, float]
    false_alarm_rate: float
    count: int

    def excess(self, scores: Mapping[str, float]) -> float:
        """How far the worst score lies above its threshold; an encoder is flagged above 0. Unknown scores count not."""
        found = [scores[name] - limit for name, limit in self.values.items() if name in scores]
        return max((x for x in found if not math.isnan(x)), default=-math.inf)

    def flag(self, scores: Mapping[str, float]) -> bool:
        """Whether any score exceeds its threshold."""
        return self.excess(scores) > 0


@dataclass(frozen=True, kw_only=True)
class Performance:
    """What thresholds are worth on encoders that did not set them. `auc` needs no threshold."""

    accuracy: Interval
    detection_rate: Interval
    false_alarm_rate: Interval
    auc: float


def tail_threshold(scores: Sequence[float], false_alarm_rate: float) -> float:
    """The score that one more clean encoder exceeds with probability `false_alarm_rate`.

    By Gumbel's law, fitted by maximum likelihood, or by the normal law's prediction bound for a further draw (Student's
    t), whichever makes the scores likelier. Never below the largest clean score that was seen.
    """
    found = [score for score in scores if math.isfinite(score)]
    if len(found) < FEWEST:
        raise DataError(f"a threshold needs the scores of at least {FEWEST} clean encoders, got {len(found)}")
    if not 0 < false_alarm_rate < 0.5:
        raise DataError(f"the wanted false alarm rate must lie between 0 and 0.5, got {false_alarm_rate}")
    count, spread = len(found), stdev(found)
    if spread == 0:
        return found[0]
    gumbel, normal = stats.gumbel_r(*stats.gumbel_r.fit(found)), stats.norm(*stats.norm.fit(found))
    if gumbel.logpdf(found).sum() > normal.logpdf(found).sum():
        bound = gumbel.isf(false_alarm_rate)
    else:
        bound = fmean(found) + stats.t.isf(false_alarm_rate, count - 1) * spread * math.sqrt(1 + 1 / count)
    return max(float(bound), *found)


def calibrate(clean: Sequence[Mapping[str, float]], *, false_alarm_rate: float = 0.01) -> Thresholds:
    """Sets a threshold for every score of clean encoders; each gets an equal part of the wanted false alarms."""
    names = sorted({name for scores in clean for name in scores})
    if not names:
        raise DataError("there are no scores of clean encoders to set thresholds from")
    each = false_alarm_rate / len(names)
    values = {name: tail_threshold([scores[name] for scores in clean if name in scores], each) for name in names}
    return Thresholds(values=values, false_alarm_rate=false_alarm_rate, count=len(clean))


def judge(
    thresholds: Thresholds, clean: Sequence[Mapping[str, float]], planted: Sequence[Mapping[str, float]]
) -> Performance:
    """Accuracy, detections and false alarms of `thresholds` on these encoders' scores."""
    alarms = [thresholds.flag(scores) for scores in clean]
    hits = [thresholds.flag(scores) for scores in planted]
    return Performance(
        accuracy=rate([*(not alarm for alarm in alarms), *hits]),
        detection_rate=rate(hits),
        false_alarm_rate=rate(alarms),
        auc=auc([thresholds.excess(s) for s in clean], [thresholds.excess(s) for s in planted]),
    )


def auc(clean: Sequence[float], planted: Sequence[float]) -> float:
    """The probability that something planted scores above something clean, ties counted half; nan of no scores."""
    if not clean or not planted:
        return math.nan
    ranks = stats.rankdata([*clean, *planted])[len(clean) :].sum()
    return float(ranks - len(planted) * (len(planted) + 1) / 2) / (len(clean) * len(planted))
