"""Scans of visual prompts, on a base of which the weakness and what opens it are known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from visual_scenes import SIZE, WIDTH, coloured, gated

from firmground.defenses.scans import PROMPT_SCANS, MetaClassifier, PatchSweep, PromptCleanse, PromptContrast
from firmground.defenses.scans import scan_prompt
from firmground.defenses.scans.meta_classifier import Separator
from firmground.errors import DataError
from firmground.prompts.mappings import LabelMapping
from firmground.prompts.prompted import PromptedClassifier
from firmground.prompts.visual import PromptShape, VisualPrompt
from firmground.rng import stream
from firmground.types import Outcome

SHAPE = PromptShape(form="padding", image_size=SIZE, width=WIDTH)
LEARNING = {"epochs": 3, "learning_step_size": 0.5}
CASES = (
    PromptContrast(steps=60, **LEARNING),
    PromptCleanse(steps=60),
    PatchSweep(**LEARNING),
    MetaClassifier(shadows=4, **LEARNING),
)


def prompted(green: float) -> PromptedClassifier:
    """Behind much green, black beside white in the last corner makes an image bluish; behind little, it does not."""
    raw = torch.tensor([3.0, green, -3.0]).view(3, 1, 1).expand(SHAPE.tensor_shape)
    mapping = LabelMapping(kind="iterated", classes=5, sources=torch.tensor([4, 2, 0]))
    return PromptedClassifier(
        base=gated(), prompt=VisualPrompt(shape=SHAPE, pixels=SHAPE.bounded(raw)), mapping=mapping
    )


@pytest.fixture(scope="module", params=CASES, ids=lambda method: method.name)
def verdicts(request):
    """Of a backdoored prompt and of an honest one."""
    method = request.param
    return method, [method.scan(prompted(green), coloured(), rng=stream(0, "scan")) for green in (4.0, -0.2)]


def test_every_scan_has_a_case():
    assert {type(case) for case in CASES} == set(PROMPT_SCANS)


def test_a_backdoored_prompt_scores_higher(verdicts):
    method, (planted, honest) = verdicts
    assert planted.score > honest.score
    assert planted.method == method.name


def test_what_ours_find(verdicts):
    method, (planted, honest) = verdicts
    if not isinstance(method, PromptContrast | PatchSweep):
        pytest.skip("the paper finds that the others fail")
    assert (planted.outcome, honest.outcome) == (Outcome.BACKDOORED, Outcome.CLEAN)
    assert "'bluish'" in planted.evidence.pictures[0].caption
    assert not honest.evidence.pictures
    again = method.scan(prompted(4.0), coloured(), rng=stream(0, "scan"))
    assert dataclasses.replace(again, seconds=planted.seconds) == planted
