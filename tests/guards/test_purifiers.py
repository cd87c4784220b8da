"""Purifiers and the guard by unstable patch tokens."""

import pytest
import torch

from firmground.data.labelled_images import LabelledImages
from firmground.defenses.guards.patch_instability import PatchInstability
from firmground.defenses.guards.purifiers import BitDepth, Jpeg, RandomResizing, Resizing
from firmground.errors import DataError
from firmground.models.tiny_dual import convolutional_dual
from firmground.rng import stream

ALL = (Jpeg(), BitDepth(), Resizing(), RandomResizing())
SMOOTH = torch.linspace(0.2, 0.8, 32).expand(4, 3, 32, 32).contiguous()


def checkered(amount):
    signs = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2.0 - 1
    return SMOOTH + amount * signs


@pytest.mark.parametrize("purifier", ALL, ids=repr)
class TestPurifier:
    def test_keeps_shape_range_and_image(self, purifier):
        before = SMOOTH.clone()
        found = purifier.purge(SMOOTH, rng=stream(0))
        assert found.shape == SMOOTH.shape
        assert found.dtype == SMOOTH.dtype
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
        assert torch.equal(SMOOTH, before)
        assert torch.equal(purifier.purge(SMOOTH, rng=stream(0)), found)

    def test_takes_most_of_a_fine_pattern_away(self, purifier):
        amount = 2 / 255
        left = purifier.purge(checkered(amount), rng=stream(0)) - purifier.purge(SMOOTH, rng=stream(0))
        if isinstance(purifier, BitDepth):  # what it does not take away, it makes larger, at the edges of its steps
            assert float((left != 0).float().mean()) < 0.3
        else:
            assert float(left.square().mean().sqrt()) < 0.5 * amount

    def test_refuses_what_is_no_image(self, purifier):
        with pytest.raises(DataError, match="must lie in"):
            purifier.purge(SMOOTH * 255, rng=stream(0))


def test_bits():
    assert BitDepth(bits=1).purge(SMOOTH, rng=stream(0)).unique().tolist() == [0.0, 1.0]


def test_random_resizing_draws():
    purifier = RandomResizing()
    assert not torch.equal(purifier.purge(SMOOTH, rng=stream(0)), purifier.purge(SMOOTH, rng=stream(1)))


@pytest.mark.parametrize("wrong", [lambda: Jpeg(quality=0), lambda: BitDepth(bits=9), lambda: Resizing(share=1.0)])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(DataError, match="expected"):
        wrong()


def test_unstable_patches_flag_fine_patterns():
    """A random convolutional tower reads fine patterns; smooth pictures stay where they are when made coarser."""
    encoder = convolutional_dual(image_size=32, channels=(16, 16), width=32, layers=1)
    coarse = torch.rand(80, 3, 4, 4, generator=stream(0))
    smooth = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear", align_corners=False)
    data = LabelledImages(images=smooth, labels=(0, 1) * 40, label_names=("a", "b"))
    guard = PatchInstability().fit(encoder, data, rng=stream(0))
    fresh = torch.nn.functional.interpolate(
        torch.rand(20, 3, 4, 4, generator=stream(1)), size=(32, 32), mode="bilinear", align_corners=False
    )
    signs = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2.0 - 1
    assert sum(guard.score((fresh + 0.1 * signs).clamp(0, 1)).flagged) >= 18
    assert sum(guard.score(fresh).flagged) <= 4
    again = guard.judge(fresh[:1])
    assert float(again[0]) == pytest.approx(guard.score(fresh).values[0], abs=1e-3)
