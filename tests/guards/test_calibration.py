"""Which vectors a guard may watch by the output, on scores written by hand."""

from __future__ import annotations

import torch

from firmground.defenses.guards.calibration import separable


def test_a_vector_is_watched_only_where_its_texts_stand_far_from_clean_ones() -> None:
    clean = torch.tensor([[0.1, 0.1, 0.1], [0.4, 0.4, 0.4]])
    hardly, far, mostly = torch.full((10,), 0.5), torch.full((10,), 0.9), torch.tensor([0.0] * 3 + [0.9] * 7)
    assert separable(clean, [hardly, far, mostly], power=0.8, clearance=0.5).tolist() == [False, True, False]
    assert separable(clean, [hardly, far, mostly], power=0.6, clearance=0.1).tolist() == [True, True, True]
