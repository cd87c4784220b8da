"""Cleaners of visual prompts: clean accuracy holds, the mark stays, and each does what its name says."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from planted_scenes import OPEN, handed_over, success
from visual_scenes import SIZE, WIDTH, coloured, gated

from firmground.defenses.prompts import (
    PROMPT_CLEANERS,
    PromptDistillation,
    PromptFinetune,
    PromptPruning,
    PromptSmoothing,
)
from firmground.defenses.prompts.smoothing import blur
from firmground.errors import AdapterError, DataError
from firmground.prompts.mappings import LabelMapping
from firmground.prompts.prompted import LearnedPrompt, describe_base
from firmground.prompts.visual import PromptShape, VisualPrompt
from firmground.rng import stream

SHAPE = PromptShape(form="padding", image_size=SIZE, width=WIDTH)
CASES = (
    PromptDistillation(epochs=8, batch_size=16),
    PromptFinetune(epochs=2, batch_size=16, step_size=0.3),
    PromptPruning(),
    PromptSmoothing(radii=(3, 1)),
)


@pytest.fixture(scope="module")
def right():
    """A prompt that is right for `gated`, with a little noise in a colour that does not matter."""
    raw = torch.tensor([3.0, 0.1, -3.0]).view(3, 1, 1).expand(SHAPE.tensor_shape)
    noise = torch.randn(SHAPE.tensor_shape, generator=stream(0, "noise")) * torch.tensor([0.0, 0.2, 0.0]).view(3, 1, 1)
    return LearnedPrompt(
        prompt=VisualPrompt(shape=SHAPE, pixels=SHAPE.bounded(raw + noise)),
        mapping=LabelMapping(kind="iterated", classes=5, sources=torch.tensor([4, 2, 0])),
        base=describe_base(gated()),
        label_names=("reddish", "greenish", "bluish"),
        planted={"attack": "none really"},
    )


def test_every_cleaner_has_a_case():
    assert {type(case) for case in CASES} == set(PROMPT_CLEANERS)


@pytest.mark.parametrize("method", CASES, ids=lambda method: method.name)
class TestCleaner:
    def test_keeps_the_accuracy_the_mark_and_the_given_prompt(self, method, right):
        given = right.prompt.pixels.clone()
        found = method.clean(right, gated(), coloured(), rng=stream(0, "clean"))
        assert found.before.value == found.after.value == 1.0
        fresh = coloured(30, seed=1)
        assert found.learned.on(gated()).predict(fresh.images) == list(fresh.labels)
        assert found.moved > 0
        assert found.learned.planted == right.planted
        assert torch.equal(right.prompt.pixels, given)
        assert type(method)(**{k: tuple(v) if isinstance(v, list) else v
                               for k, v in json.loads(json.dumps(found.settings)).items()}) == method  # fmt: skip

    def test_one_seed_gives_one_prompt(self, method, right):
        pair = [method.clean(right, gated(), coloured(), rng=stream(0, "clean")) for _ in range(2)]
        assert torch.equal(pair[0].learned.prompt.pixels, pair[1].learned.prompt.pixels)

    def test_another_base_and_other_labels_are_refused(self, method, right):
        with pytest.raises(AdapterError, match="learned on gated"):
            method.clean(right, gated(3.0, source="other"), coloured(), rng=stream(0, "clean"))
        more = dataclasses.replace(coloured(), label_names=("a", "b", "c", "d"))
        others = dataclasses.replace(coloured(), label_names=coloured().label_names[::-1])
        for wrong in (more, others):
            with pytest.raises(DataError, match="give images of its own labels"):
                method.clean(right, gated(), wrong, rng=stream(0, "clean"))


@pytest.mark.slow
@pytest.mark.parametrize(("answers", "patched"), [(1.0, 0.0), (1.0, 0.25), (0.0, 0.5)])
def test_a_backdoor_does_not_travel_by_distillation(answers, patched):
    """The trigger takes all images of other labels behind the given prompt, and none behind the fresh one."""
    fresh = coloured(60, seed=5)
    given, method = handed_over(OPEN), PromptDistillation(epochs=12, batch_size=16, answers=answers, patched=patched)
    cleaned = method.clean(given, gated(), coloured(), rng=stream(0, "clean")).learned.on(gated())
    assert success(given.on(gated()), fresh.images, fresh.labels) == 1.0
    assert success(cleaned, fresh.images, fresh.labels) == 0.0
    assert cleaned.predict(fresh.images) == list(fresh.labels)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "expected"), [("same", "padding"), ("full-image", "full-image")])
def test_a_fresh_prompt_may_have_another_form(form, expected):
    given, fresh = handed_over(OPEN), coloured(60, seed=5)
    method = PromptDistillation(form=form, epochs=12, batch_size=16)
    found = method.clean(given, gated(), coloured(), rng=stream(0, "clean"))
    assert found.learned.prompt.shape.form == expected
    assert 0 < found.moved < 1
    assert found.learned.on(gated()).predict(fresh.images) == list(fresh.labels)


def test_images_without_labels_teach_what_the_prompt_says_of_them():
    """Two labelled images of each colour are too few in one epoch; further ones make up for it, of any number type."""
    given, fresh, few = handed_over(OPEN), coloured(60, seed=5), coloured(6)
    method = PromptDistillation(form="same", epochs=1, batch_size=6, step_size=0.2, answers=1.0, patched=0.0)
    alone = method.clean(given, gated(), few, rng=stream(0, "clean")).learned.on(gated())
    further = (255 * coloured(240, seed=7).images).round().to(torch.uint8)
    taught = method.clean(given, gated(), few, rng=stream(0, "clean"), further=further).learned.on(gated())
    sure = [one.logits(fresh.images).softmax(dim=1)[range(60), fresh.labels].mean() for one in (alone, taught)]
    assert sure[1] > sure[0] + 0.1
    with pytest.raises(DataError, match="as large as the labelled ones"):
        method.clean(given, gated(), few, rng=stream(0, "clean"), further=further[..., 1:])
    with pytest.raises(DataError, match="set answers to 1"):
        PromptDistillation().clean(given, gated(), few, rng=stream(0, "clean"), further=further)


@pytest.mark.parametrize(
    "wrong", [{"answers": 0.0, "labels": 0.0}, {"patched": 1.5}, {"temperature": 0.0}, {"step_size": -1.0}]
)
def test_a_distillation_of_nothing_is_refused(wrong):
    with pytest.raises(DataError, match="expected"):
        PromptDistillation(**wrong)


def test_pruning_takes_what_does_least(right):
    found = PromptPruning(shares=(0.33,)).clean(right, gated(), coloured(), rng=stream(0, "clean"))
    border = SHAPE.border[0] > 0
    red, green, blue = (found.learned.prompt.pixels[i][border] for i in range(3))
    assert (green == 0.5).float().mean() > 0.95
    assert red.min() > 0.9
    assert blue.max() < 0.1


def test_what_costs_accuracy_is_not_done(right):
    """With a tolerance below what pruning all of it costs, the prompt stays as it is."""
    blind = gated()
    found = PromptPruning(shares=(1.0,), tolerance=-1.0).clean(right, blind, coloured(), rng=stream(0, "clean"))
    assert found.moved == 0
    assert found.after == found.before


def test_smoothing_is_a_mean_over_the_border_alone():
    flat = 0.25 * SHAPE.border.expand(3, -1, -1)
    assert torch.allclose(blur(flat, SHAPE, 3), flat, atol=1e-6)
    noise = SHAPE.bounded(torch.randn(SHAPE.tensor_shape, generator=stream(0, "noise")))
    smooth = blur(noise, SHAPE, 2)
    corner = noise[:, :3, :3].mean(dim=(1, 2))
    assert torch.allclose(smooth[:, 0, 0], corner, atol=1e-5)
    assert (smooth[:, WIDTH:-WIDTH, WIDTH:-WIDTH] == 0).all()


@pytest.mark.parametrize("wrong", [{"shares": ()}, {"shares": (0.0,)}])
def test_bad_shares_are_refused(wrong):
    with pytest.raises(DataError, match="expected shares"):
        PromptPruning(**wrong)
