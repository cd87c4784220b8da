"""The study transfer_cost: its plain forms do the same work, and its report takes means over towers."""

import dataclasses

import pytest
import torch

from firmground.attacks.evasion import PRM
from firmground.models.surrogates import Surrogate
from firmground.models.tiny_dual import tiny_clip
from firmground.rng import stream
from firmground.studies import transfer_cost
from firmground.studies.runner import Record
from firmground.types import ignore


def test_the_plain_loop_is_prm_image_by_image():
    surrogate = Surrogate.of(tiny_clip())
    images = (torch.rand(2, 3, 48, 48, generator=stream(0, "images")) * 255).round() / 255
    ours = PRM(steps=6).perturb(surrogate, images, rng=stream(0, "ours"))
    plain = transfer_cost.plain_loop(surrogate, images, 6)
    held = surrogate.features(images).layers
    moved = surrogate.features(torch.cat(plain)).layers
    loss = sum(torch.cosine_similarity(a, b, dim=-1).mean(dim=1) for a, b in zip(held, moved, strict=True))
    assert ours.after == pytest.approx(loss.tolist(), abs=0.02)


@pytest.mark.slow
def test_a_case_gives_ratios(monkeypatch):
    for name, value in (("SIDE", 48), ("BATCH", 2), ("ALONE", 1), ("STEPS", 1), ("RUNS", 1), ("FILES", 2)):
        monkeypatch.setattr(transfer_cost, name, value)
    monkeypatch.setattr(transfer_cost, "TOWERS", {"tiny": tiny_clip})
    case = transfer_cost.Case(tower="tiny")
    results = transfer_cost.run_case(case, ignore)
    assert all(value > 0 for value in results.values())
    record = Record(study="transfer_cost", version=1, case=dataclasses.asdict(case), results=results)
    report = transfer_cost.report_cost(
        [record, dataclasses.replace(record, results=results | {"prm_over_bare_passes": 2.0})]
    )
    assert report.summary["prm_over_bare_passes"] == pytest.approx((results["prm_over_bare_passes"] + 2) / 2)
    assert set(report.summary) == {"prm_over_bare_passes", "plain_loop_over_prm", "peak_memory_ratio_10x_images"}
    assert "tiny" in report.markdown
