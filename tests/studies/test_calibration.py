from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats

from firmground.errors import DataError
from firmground.rng import stream
from firmground.studies.calibration import Thresholds, auc, calibrate, judge, tail_threshold


def gumbel(count: int, *, location: float = 0.0, scale: float = 1.0, seed: int = 0) -> list[float]:
    uniform = torch.rand(count, generator=stream(seed, "gumbel"), dtype=torch.float64)
    return (location - scale * torch.log(-torch.log(uniform))).tolist()


def normal(count: int, *, location: float = 0.0, scale: float = 1.0, seed: int = 0) -> list[float]:
    draws = torch.randn(count, generator=stream(seed, "normal"), dtype=torch.float64)
    return (location + scale * draws).tolist()


@pytest.mark.parametrize("wanted", [0.05, 0.02, 0.01])
@pytest.mark.parametrize(("draw", "law"), [(gumbel, stats.gumbel_r), (normal, stats.norm)])
def test_the_threshold_leaves_about_the_wanted_false_alarms(draw: Any, law: Any, wanted: float) -> None:
    realised = []
    for seed in range(40):
        threshold = tail_threshold(draw(30, location=0.3, scale=0.05, seed=seed), wanted)
        realised.append(law.sf(threshold, loc=0.3, scale=0.05))
    average = sum(realised) / len(realised)
    assert 0.3 * wanted < average < 1.8 * wanted


def test_the_threshold_moves_and_stretches_with_the_scores() -> None:
    scores = [score for score in gumbel(40) if score < 3]  # else the largest score may be the threshold
    moved = tail_threshold([3 + 10 * score for score in scores], 0.01)
    assert moved == pytest.approx(3 + 10 * tail_threshold(scores, 0.01), rel=1e-3)
    assert tail_threshold(scores, 0.01) > tail_threshold(scores, 0.05) >= max(scores)
    assert tail_threshold([*scores, 99.0], 0.05) >= 99.0


def test_planted_numbers_are_judged_rightly() -> None:
    clean = [{"sweep": score, "mining": score + 5} for score in gumbel(30, scale=0.1)]
    thresholds = calibrate(clean, false_alarm_rate=0.02)
    assert set(thresholds.values) == {"sweep", "mining"}
    assert thresholds.values["mining"] == pytest.approx(thresholds.values["sweep"] + 5, rel=1e-3)
    planted = [{"sweep": 3.0, "mining": 5.0}, {"sweep": 0.0, "mining": 9.0}, {"sweep": 0.0, "mining": 5.0}]
    found = judge(thresholds, clean, planted)
    assert found.detection_rate.value == pytest.approx(2 / 3)
    assert found.false_alarm_rate.value == 0
    assert found.accuracy.value == pytest.approx(32 / 33)
    assert found.accuracy.count == 33
    assert 0.66 < found.auc < 1


def test_a_score_at_the_threshold_or_absent_is_no_finding() -> None:
    thresholds = Thresholds(values={"sweep": 1.0}, false_alarm_rate=0.01, count=30)
    assert not thresholds.flag({"sweep": 1.0})
    assert thresholds.flag({"sweep": 1.001})
    assert not thresholds.flag({"other": 9.0})
    assert not thresholds.flag({"sweep": math.nan})


def test_auc_counts_ties_half() -> None:
    assert auc([0.0, 1.0], [1.0, 2.0]) == pytest.approx(3.5 / 4)
    assert math.isnan(auc([], [1.0]))


def test_scores_that_are_all_the_same_are_the_threshold() -> None:
    assert tail_threshold([0.5] * 9, 0.01) == 0.5


def test_too_few_clean_encoders_are_refused() -> None:
    with pytest.raises(DataError, match="at least 8 clean"):
        tail_threshold([0.1] * 7, 0.01)
    with pytest.raises(DataError, match=r"between 0 and 0\.5"):
        tail_threshold([0.1] * 9, 0.0)
    with pytest.raises(DataError, match="no scores"):
        calibrate([])
