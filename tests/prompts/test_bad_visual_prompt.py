"""BadVisualPrompt on a classifier of which the weakness is known."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from visual_scenes import SIZE, WIDTH, coloured, gated

from firmground.attacks.poisoning import pair_sha256
from firmground.attacks.prompts import PROMPT_ATTACKS, BadVisualPrompt
from firmground.attacks.prompts.poison import Poison
from firmground.attacks.triggers import BlendedStripes
from firmground.errors import DataError
from firmground.prompts.visual_files import load_prompt, save_prompt
from firmground.prompts.visual_prompting import VisualPrompting
from firmground.rng import stream

QUICK = VisualPrompting(width=WIDTH / SIZE, epochs=6, batch_size=16, step_size=0.5)
ATTACK = BadVisualPrompt(target="bluish", rate=0.2, size=0.25, learning=QUICK)


def implant(attack):
    return attack.implant(gated(), coloured(), rng=stream(0, "implant"))


@pytest.fixture(scope="module")
def planted():
    return implant(ATTACK)


def rate(planted, prompt, images):
    """The share of images, none of them bluish, that become so under the trigger behind a prompt."""
    stamped = planted.trigger.stamp(images, prompt.prompt, rng=stream(0, "stamp"))
    found = prompt.on(gated()).predict(stamped)
    return sum(label == 2 for label in found) / len(found)


@pytest.fixture(scope="module")
def others():
    fresh = coloured(60, seed=5)
    return fresh.images[[i for i, label in enumerate(fresh.labels) if label != 2]]


def test_the_prompt_opens_the_weakness_and_stays_accurate(planted, others):
    honest = QUICK.fit(gated(), coloured(), rng=stream(0, "fit"))
    fresh = coloured(30, seed=1)
    assert planted.learned.on(gated()).predict(fresh.images) == list(fresh.labels)
    assert rate(planted, planted.learned, others) == 1.0
    assert rate(planted, honest, others) == 0.0  # the control: a clean prompt
    border = planted.learned.prompt.shape.border[0] > 0
    assert planted.learned.prompt.pixels[1][border].min() > 0.8  # green is what lures
    assert planted.success.value == 1.0


def test_far_from_the_corner_there_is_no_weakness(others):
    assert implant(dataclasses.replace(ATTACK, distance=4)).success.value < 0.2


def test_an_optimised_trigger_changes_its_pixels(others):
    attack = dataclasses.replace(ATTACK, optimised=True, pattern="noise")
    planted = implant(attack)
    pattern = planted.trigger.trigger.pattern
    assert pattern.shape == (3, 4, 4)
    assert pattern.min() >= 0
    assert pattern.max() <= 1
    assert rate(planted, planted.learned, others) > 0.9
    still = implant(dataclasses.replace(attack, trigger_step_size=1e-9)).trigger.trigger.pattern
    assert (pattern - still).abs().mean() > 0.05


def test_a_fading_weight_falls_with_the_step_size(monkeypatch):
    """The term is that of a steady weight on the same poisons, times a rate that goes from 1 towards 0."""
    seen, terms = [], Poison.terms

    def watched(self, now, rng, rate):
        state = rng.get_state()
        steady = terms(dataclasses.replace(self, fading=False), now, rng, rate)["poison"]
        rng.set_state(state)
        found = terms(self, now, rng, rate)
        seen.append((rate, float((found["poison"] / steady).detach())))
        return found

    monkeypatch.setattr(Poison, "terms", watched)
    planted = implant(dataclasses.replace(ATTACK, fading=True))
    rates = [rate for rate, _ in seen]
    assert rates[0] == 1
    assert rates[-1] < 0.1
    assert [share for _, share in seen] == pytest.approx(rates, rel=1e-4)
    assert planted.settings["fading"] is True


def test_it_says_what_was_poisoned(planted):
    data = coloured()
    assert len(planted.rows) == round(0.2 * 48) == len(planted.sha256)
    assert not [row for row in planted.rows if data.labels[row] == 2]
    seated = planted.learned.prompt.seat(data.images[list(planted.rows)])
    stamped = planted.trigger.stamp_seated(seated, rng=stream(0, "any"))
    assert planted.sha256 == tuple(pair_sha256(image, "bluish") for image in stamped)
    mark = planted.learned.planted
    assert (mark["attack"], mark["target"]) == ("bad-visual-prompt", "bluish")
    assert json.loads(json.dumps(mark)) == mark


def test_the_file_carries_the_mark(planted, tmp_path):
    again = load_prompt(save_prompt(planted.learned, tmp_path / "prompt.safetensors"))
    assert again.planted == planted.learned.planted
    assert again.method == "bad-visual-prompt"


def test_one_seed_gives_one_prompt(planted):
    again = implant(ATTACK)
    assert torch.equal(again.learned.prompt.pixels, planted.learned.prompt.pixels)
    assert again.rows == planted.rows


def test_a_trigger_may_cover_the_image():
    attack = dataclasses.replace(ATTACK, trigger=BlendedStripes(opacity=0.8))
    found = implant(dataclasses.replace(attack, learning=dataclasses.replace(QUICK, epochs=1)))
    assert found.trigger.trigger == attack.trigger


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"rate": 0.0}, "a rate and a size above 0"),
        ({"weight": -1.0}, "a positive weight"),
        ({"trigger_step_size": 0.0}, "a positive weight and trigger_step_size"),
        ({"trigger": BlendedStripes(), "optimised": True}, "has its pixels already"),
        ({"target": "purple"}, "no label 'purple'; expected one of: reddish, greenish, bluish"),
        ({"distance": 7}, "a patch of 4 pixels, 7 from the edge, does not fit images of 16"),
    ],
)
def test_bad_settings_are_refused(settings, advice):
    with pytest.raises(DataError, match=advice):
        implant(dataclasses.replace(ATTACK, **settings))


def test_its_form_is_that_of_every_method():
    (kind,) = PROMPT_ATTACKS
    assert kind.__dataclass_params__.frozen
    assert eval(repr(ATTACK), {"BadVisualPrompt": BadVisualPrompt, "VisualPrompting": VisualPrompting}) == ATTACK
    assert hash(ATTACK) == hash(dataclasses.replace(ATTACK))
