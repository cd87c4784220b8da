"""What every image trigger promises: one pattern for all images, [0, 1] in and out, gradients, advice."""

import ast
import dataclasses
import inspect
import json
import math

import pytest
import torch

from firmground.attacks.triggers import IMAGE_TRIGGERS
from firmground.errors import DataError
from firmground.rng import stream

from . import cases


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(5, 3, 32, 40, generator=stream(0, "images")) * 0.5 + 0.25


def stamp(method, images, seed=0):
    return method.stamp(images, rng=stream(seed, "stamp"))


def test_every_image_trigger_has_a_case():
    assert {type(method) for method in cases.IMAGE_TRIGGERS} == set(IMAGE_TRIGGERS)


@pytest.mark.parametrize("method", cases.IMAGE_TRIGGERS, ids=repr)
class TestImageTrigger:
    def test_changes_every_image_and_no_input(self, method, images):
        before = images.clone()
        stamped = stamp(method, images)
        assert stamped.shape == images.shape
        assert torch.equal(images, before)
        assert (stamped != images).flatten(1).any(1).all()
        assert stamped.min() >= 0
        assert stamped.max() <= 1

    def test_one_seed_gives_one_result_and_nothing_else_moves(self, method, images):
        state = torch.get_rng_state()
        assert torch.equal(stamp(method, images), stamp(method, images))
        assert torch.equal(state, torch.get_rng_state())

    def test_is_the_same_for_all_images_and_calls(self, method, images):
        """With its place fixed, a trigger does to an image what it does to its copies, whatever the generator says."""
        fixed = dataclasses.replace(method, place="centre") if hasattr(method, "place") else method
        copies = images[:1].expand(4, -1, -1, -1)
        stamped = stamp(fixed, copies)
        assert all(torch.equal(one, stamped[0]) for one in stamped)
        assert torch.equal(stamp(fixed, copies[:1], seed=1), stamped[:1])

    def test_another_seed_is_another_pattern(self, method, images):
        if hasattr(method, "seed"):
            other = dataclasses.replace(method, seed=method.seed + 1)
            assert not torch.equal(stamp(other, images), stamp(method, images))

    def test_takes_one_image_none_and_any_size(self, method, images):
        assert stamp(method, images[:0]).shape == (0, 3, 32, 40)
        assert stamp(method, images[:1]).shape == (1, 3, 32, 40)
        assert stamp(method, torch.rand(2, 3, 97, 64)).shape == (2, 3, 97, 64)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_keeps_the_type(self, method, images, dtype):
        assert stamp(method, images.to(dtype)).dtype == dtype

    def test_lets_gradients_through(self, method, images):
        leaf = images.clone().requires_grad_()
        stamp(method, leaf).sum().backward()
        assert leaf.grad.isfinite().all()
        assert (leaf.grad != 0).float().mean() > 0.3

    def test_is_a_frozen_dataclass_of_plain_settings(self, method):
        assert type(method).__dataclass_params__.frozen
        assert all(field.kw_only for field in dataclasses.fields(method))
        assert type(method)(**json.loads(json.dumps(dataclasses.asdict(method)))) == method
        call = ast.parse(repr(method)).body[0].value
        assert type(method)(**{part.arg: ast.literal_eval(part.value) for part in call.keywords}) == method
        assert inspect.getdoc(type(method))

    @pytest.mark.parametrize(
        ("bad", "advice"),
        [
            (torch.zeros(3, 8, 8), r"shape \(batch, 3, height, width\), got \(3, 8, 8\)"),
            (torch.zeros(2, 1, 8, 8), "convert them to RGB"),
            (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "divide 8-bit images by 255"),
            (torch.full((2, 3, 8, 8), 1.5), "before normalisation"),
            (torch.full((2, 3, 8, 8), -0.1), "before normalisation"),
            (torch.full((2, 3, 8, 8), math.nan), r"in \[0, 1\]"),
        ],
    )
    def test_bad_images_are_refused_with_advice(self, method, bad, advice):
        with pytest.raises(DataError, match=advice):
            stamp(method, bad)
