"""Scans of visual prompts, on a base of which the weakness and what opens it are known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from planted_scenes import OPEN, SHUT, prompted
from visual_scenes import coloured

from firmground.defenses.scans import (
    PROMPT_SCANS,
    MetaClassifier,
    PatchSweep,
    PromptCleanse,
    PromptContrast,
    scan_prompt,
)
from firmground.defenses.scans.meta_classifier import Separator, pixels_of
from firmground.errors import DataError
from firmground.rng import stream
from firmground.types import Outcome

LEARNING = {"epochs": 3, "learning_step_size": 0.5}
CASES = (
    PromptContrast(steps=60, **LEARNING),
    PromptCleanse(steps=60),
    PatchSweep(**LEARNING),
    MetaClassifier(shadows=4, **LEARNING),
)


def test_every_scan_has_a_case():
    assert {type(case) for case in CASES} == set(PROMPT_SCANS)


@pytest.mark.parametrize("method", CASES, ids=lambda method: method.name)
class TestScan:
    @pytest.mark.slow
    def test_a_backdoored_prompt_scores_higher(self, method):
        planted, honest = (method.scan(prompted(green), coloured(), rng=stream(0, "s")) for green in (OPEN, SHUT))
        assert planted.score > honest.score
        assert planted.method == method.name
        assert planted.settings == dataclasses.asdict(method)
        if isinstance(method, PromptContrast | PatchSweep):  # the others cannot tell where three labels are all
            assert (planted.outcome, honest.outcome) == (Outcome.BACKDOORED, Outcome.CLEAN)
            assert "'bluish'" in planted.evidence.pictures[0].caption
            assert not honest.evidence.pictures

    def test_other_labels_are_refused(self, method):
        more = dataclasses.replace(coloured(), label_names=("a", "b", "c", "d"))
        with pytest.raises(DataError, match="the prompt gives 3 labels, and the images have 4"):
            method.scan(prompted(SHUT), more, rng=stream(0, "s"))


def test_the_default_gives_the_same_verdict_twice():
    method = PromptContrast(steps=20, **LEARNING)
    first, again = (scan_prompt(prompted(OPEN), coloured(), rng=stream(0, "s"), method=method)[0] for _ in range(2))
    assert dataclasses.replace(again, seconds=first.seconds) == first


def test_a_separator_finds_the_direction_that_matters():
    features = torch.randn(40, 6, generator=stream(0, "features"))
    bad = [bool(row[2] > 0) for row in features]
    separator = Separator.fit(features, bad, strength=1.0)
    assert sum((separator.score(row) > 0) == truth for row, truth in zip(features, bad, strict=True)) >= 38
    with pytest.raises(DataError, match="clean and backdoored"):
        Separator.fit(features, [True] * 40)


def test_how_a_prompt_looks_says_where_it_is_rough():
    flat = prompted(SHUT).prompt
    noisy = dataclasses.replace(flat, pixels=flat.pixels * torch.rand(flat.pixels.shape, generator=stream(0, "noise")))
    assert not torch.allclose(pixels_of(flat), pixels_of(noisy))
    assert pixels_of(flat).shape == (3 * 4 * 9,)


def test_bad_settings_are_refused():
    with pytest.raises(DataError, match="features outputs or pixels"):
        MetaClassifier(features="weights")
    with pytest.raises(DataError, match="an even number of shadow prompts"):
        MetaClassifier(shadows=3, **LEARNING).scan(prompted(SHUT), coloured(), rng=stream(0, "s"))


def test_the_search_folds_batch_norms_and_leaves_the_base_alone(monkeypatch):
    plain = prompted(SHUT)
    norm = torch.nn.BatchNorm2d(3).eval().requires_grad_(False)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1).requires_grad_(False), norm, plain.base.module)
    slow = dataclasses.replace(plain, base=dataclasses.replace(plain.base, module=module, weights=module))
    calls, forward = [], torch.nn.BatchNorm2d.forward
    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", lambda self, x: calls.append(1) or forward(self, x))
    PromptCleanse(steps=30).scan(slow, coloured(), rng=stream(0, "s"))
    assert 0 < len(calls) < 5
    assert slow.base.module[1] is norm
