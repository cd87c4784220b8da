"""What every evasion promises: within epsilon after rounding, repeatable, a falling objective, nothing else moves."""

from __future__ import annotations

import dataclasses
import functools
import json
import math

import pytest
import torch

from firmground.attacks.evasion import XTransfer
from firmground.errors import DataError, UnsupportedModelError
from firmground.models.planted_dual import colour_clip
from firmground.models.tiny_dual import convolutional_dual
from firmground.rng import stream

from . import cases
from .conftest import Heard, blots, nothing_else_moves

VIT_ONLY = ("pna-patchout", "tgr")


@pytest.fixture(scope="module")
def encoder():
    return colour_clip()


@pytest.fixture(scope="module")
def images():
    """Five pictures of 256 levels: a batch, and one more."""
    return (blots(5)[0] * 255).round() / 255


@pytest.fixture(scope="module")
def convolutions():
    return convolutional_dual(channels=(8, 8, 16), words=("cyan",))


def perturb(method, encoder, images, seed=0, **extra):
    return method.perturb(encoder, images, rng=stream(seed, "perturb"), **extra)


@pytest.fixture(scope="module")
def made_by(encoder, images):
    """What a method makes of the images under the first seed: made once for all that look at it."""
    return functools.cache(lambda method: perturb(method, encoder, images))


@pytest.mark.parametrize("method", cases.EVASIONS, ids=repr)
class TestEvasion:
    def test_stays_within_epsilon_in_256_levels(self, method, made_by, images):
        made = made_by(method)
        levels = 255 * made.images
        assert made.images.shape == images.shape
        assert (levels - levels.round()).abs().max() < 1e-3
        assert levels.round().min() >= 0
        assert levels.round().max() <= 255
        farthest = (levels.round() - (255 * images).round()).abs().flatten(1).amax(dim=1)
        assert (farthest >= 1).all()
        assert farthest.max() <= round(255 * method.epsilon)
        assert made.distance == pytest.approx((farthest / 255).tolist())
        assert max(made.distance) <= method.epsilon

    def test_its_objective_falls(self, method, made_by, images):
        made = made_by(method)
        assert len(made.losses) == method.steps
        assert len(made.before) == len(made.after) == len(images)
        assert sum(made.after) < sum(made.before)
        assert not made.doubts

    def test_one_seed_gives_one_result_and_nothing_else_moves(self, method, made_by, encoder, images, capfd):
        heard, before = Heard(), images.clone()
        first, two = (dataclasses.replace(method, steps=steps) for steps in (1, 2))
        with nothing_else_moves(encoder, capfd):
            again = perturb(two, encoder, images, watch=heard)
            heard.check()
        assert torch.equal(images, before)
        assert torch.equal(made_by(two).images, again.images)
        assert made_by(two).losses == again.losses
        assert not torch.equal(made_by(first).images, perturb(first, encoder, images, seed=1).images)

    def test_says_how_it_came_to_it(self, method, made_by):
        made = made_by(dataclasses.replace(method, steps=1))
        assert made.method == method.name
        settings = json.loads(json.dumps(made.settings))
        lists = {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
        assert type(method)(**settings | lists) == dataclasses.replace(method, steps=1)
        assert made.seconds > 0

    def test_takes_one_image_of_another_size_and_keeps_its_type(self, method, encoder):
        one = torch.rand(1, 3, 60, 80, generator=stream(0, "one"), dtype=torch.float64)
        extra = {"target": one.flip(3)} if method.name in ("attack-vlm", "m-attack") else {}
        made = perturb(dataclasses.replace(method, steps=1), encoder, one, **extra)
        assert made.images.shape == one.shape
        assert made.images.dtype == torch.float64

    def test_works_on_convolutions_or_says_why_not(self, method, convolutions, images):
        short = dataclasses.replace(method, steps=1)
        if method.name in VIT_ONLY:
            with pytest.raises(UnsupportedModelError, match=r"attention of a vision transformer.*has none"):
                perturb(short, convolutions, images)
            return
        assert perturb(short, convolutions, images).images.shape == images.shape

    def test_works_on_several_encoders(self, method, encoder, images):
        made = perturb(dataclasses.replace(method, steps=1), [encoder, colour_clip(1)], images[:2])
        assert made.images.shape == (2, 3, 48, 48)

    @pytest.mark.parametrize(
        ("bad", "advice"),
        [
            (torch.zeros(3, 8, 8), r"shape \(batch, 3, height, width\), got \(3, 8, 8\)"),
            (torch.zeros(2, 1, 8, 8), r"\(batch, 3, height, width\)"),
            (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "divide 8-bit images by 255"),
            (torch.full((2, 3, 8, 8), 1.5), "the encoder normalises them"),
            (torch.full((2, 3, 8, 8), math.nan), r"in \[0, 1\]"),
        ],
    )
    def test_bad_images_are_refused_with_advice(self, method, encoder, bad, advice):
        with pytest.raises(DataError, match=advice):
            perturb(method, encoder, bad)

    def test_something_that_is_no_encoder_is_refused(self, method, images):
        with pytest.raises(UnsupportedModelError, match="cannot hook Linear; expected a CLIP"):
            perturb(method, torch.nn.Linear(2, 2), images)

    @pytest.mark.parametrize(
        ("settings", "advice"),
        [
            ({"epsilon": 0.0}, "above 0 and at most 1.*got 0.0"),
            ({"epsilon": 8.0}, "at most 1, in units of .* got 8.0"),
            ({"epsilon": 0.5 / 255}, "lost when images are saved; give at least 1/255"),
            ({"steps": 0}, "one step or more"),
            ({"batch_size": 0}, "a batch of one or more"),
        ],
    )
    def test_bad_settings_are_refused_with_advice(self, method, settings, advice):
        with pytest.raises(DataError, match=advice):
            dataclasses.replace(method, **settings)

    def test_no_setting_may_be_no_number(self, method):
        for field in dataclasses.fields(method):
            if isinstance(field.default, float):
                for bad in (math.nan, math.inf, -1.0):
                    with pytest.raises(DataError, match=f"expected .*(got|{field.name})"):
                        dataclasses.replace(method, **{field.name: bad})


def test_only_one_evasion_changes_all_images_alike(made_by):
    for method in cases.EVASIONS:
        pattern = made_by(dataclasses.replace(method, steps=1)).pattern
        assert (pattern is not None) == isinstance(method, XTransfer)
