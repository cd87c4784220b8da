"""What is particular to each image trigger; what all promise is in tests/conformance/test_image_triggers.py."""

import math

import pytest
import torch

from firmground.attacks.triggers import (
    SIG,
    BadNet,
    Blended,
    BlendedStripes,
    Patch,
    Stripes,
    TextOverlay,
    Triangles,
    WaNet,
)
from firmground.attacks.triggers._face import lettered
from firmground.errors import DataError
from firmground.rng import stream

GREY = torch.full((6, 3, 32, 40), 0.5)


def stamp(method, images=GREY, seed=0):
    return method.stamp(images, rng=stream(seed, "stamp"))


def changed(images, before=GREY):
    """The rows and columns of each image that differ, as sets."""
    differs = (images != before).any(1)
    return [(set(map(tuple, one.nonzero().tolist()))) for one in differs]


def corner(pixels):
    return min(pixels)


@pytest.mark.parametrize(("side", "pixels"), [(224, 16), (48, 3), (448, 32)])
def test_badnets_patch_is_sixteen_pixels_of_224(side, pixels):
    images = torch.full((1, 3, side, side), 0.5)
    (found,) = changed(stamp(BadNet(), images), images)
    assert len(found) == pixels * pixels


@pytest.mark.parametrize("method", [BadNet(pixels=5), Stripes(pixels=5)])
def test_a_random_place_differs_from_image_to_image_and_the_pattern_does_not(method):
    images = torch.full((40, 3, 32, 40), 0.5)
    stamped = stamp(method, images)
    places = [corner(found) for found in changed(stamped, images)]
    assert len(set(places)) > 20
    patches = [one[:, y : y + 5, x : x + 5] for one, (y, x) in zip(stamped, places, strict=True)]
    assert all(torch.equal(patch, patches[0]) for patch in patches)


@pytest.mark.parametrize(
    ("place", "expected"),
    [("top-left", (0, 0)), ("top-right", (0, 35)), ("bottom-left", (27, 0)), ("bottom-right", (27, 35)),
     ("centre", (13, 17))],
)  # fmt: skip
def test_fixed_places(place, expected):
    assert {corner(found) for found in changed(stamp(BadNet(pixels=5, place=place)))} == {expected}


def test_random_places_reach_the_edges_and_stay_inside():
    images = torch.full((400, 3, 8, 8), 0.5)
    places = [corner(found) for found in changed(stamp(BadNet(pixels=6), images), images)]
    assert set(places) == {(y, x) for y in range(3) for x in range(3)}


def test_blended_is_eight_tenths_of_the_image():
    black, white = stamp(Blended(), GREY * 0), stamp(Blended(), GREY * 0 + 1)
    torch.testing.assert_close(white - black, torch.full_like(GREY, 0.8))
    assert 0.18 < black.max() <= 0.2


def test_sig_is_a_sinusoid_across_the_image():
    waves = stamp(SIG())[0, 0] - 0.5
    expected = [60 / 255 * math.sin(2 * math.pi * j * 6 / 40) for j in range(40)]
    torch.testing.assert_close(waves, torch.tensor(expected).expand(32, 40), atol=1e-6, rtol=0)


def test_wanet_shifts_by_half_its_strength_on_average():
    """An image that holds its own coordinates shows where every pixel came from."""
    side = 64
    line = torch.linspace(0, 1, side)
    images = torch.stack([line.expand(side, side), line[:, None].expand(side, side), torch.zeros(side, side)])[None]
    shift = (stamp(WaNet(k=4, s=2.0), images) - images)[0, :2, 8:-8, 8:-8] * (side - 1)
    assert 0.3 < shift.abs().mean() < 1.5
    assert (shift[:, 1:] - shift[:, :-1]).abs().max() < 0.5, "a field of 4 x 4 shifts is smooth"


def test_stripes_are_vertical_and_fully_on_or_off():
    patch = stamp(Stripes(pixels=8, place="top-left"))[0, :, :8, :8]
    assert torch.equal(patch, patch[:, :1].expand_as(patch))
    assert set(patch.unique().tolist()) == {0.0, 1.0}
    whole = stamp(BlendedStripes(width=2))[0]
    assert torch.equal(whole, whole[:, :1].expand_as(whole))
    assert torch.equal(whole[..., 0::2], whole[..., 1::2])


def test_triangles_split_each_cell():
    pattern = (stamp(Triangles(opacity=1.0, size=8 / 32)))[0, 0]
    assert torch.equal(pattern[:8, :8], pattern[8:16, 16:24])
    assert pattern[7, 0] == pytest.approx(0.4)
    assert pattern[0, 7] == pytest.approx(0.8)


def test_text_is_red_and_can_be_read():
    images = torch.zeros(1, 3, 32, 40)
    stamped = stamp(TextOverlay(text="hi", opacity=1.0, width=12 / 40), images)
    assert not stamped[:, 1:].any()
    assert torch.equal(stamped[0, 0, 12:19, 14:26], lettered("hi"))
    drawn = ["".join(" #"[int(bit)] for bit in row).rstrip() for row in lettered("t1")]
    assert drawn[0] == "#####   #"
    assert drawn[6] == "  #    ###"


def test_a_patch_lets_gradients_through_to_its_pattern():
    pattern = torch.full((3, 4, 4), 0.4, requires_grad=True)
    images = GREY.clone().requires_grad_()
    Patch(pattern=pattern, place="centre", opacity=0.5).stamp(images, rng=stream(0, "stamp")).sum().backward()
    assert torch.allclose(pattern.grad, torch.full_like(pattern, 0.5 * len(GREY)))
    assert images.grad.sum() == pytest.approx(GREY.numel() - 0.5 * len(GREY) * 48, rel=1e-4)


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: BadNet(size=0.0), "a size above 0"),
        (lambda: BadNet(place="left"), "a place among random"),
        (lambda: Blended(opacity=1.5), "an opacity above 0 and at most 1, got 1.5"),
        (lambda: WaNet(k=1), "at least 2 x 2"),
        (lambda: WaNet(s=0.0), "a strength s above 0"),
        (lambda: SIG(amplitude=0.0), "an amplitude above 0"),
        (lambda: BlendedStripes(width=0), "at least one pixel"),
        (lambda: TextOverlay(text="caf\u00e9"), "letters, digits and spaces"),
        (lambda: TextOverlay(text=" "), "letters, digits and spaces"),
        (lambda: Patch(pattern=torch.zeros(4, 4)), "pattern of shape"),
    ],
)
def test_bad_settings_are_refused_with_advice(make, advice):
    with pytest.raises(DataError, match=advice):
        make()


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(DataError, match="1 to 32 pixels"):
        stamp(BadNet(pixels=33))
    with pytest.raises(DataError, match="at least 33 x 4 pixels"):
        stamp(Patch(pattern=torch.zeros(3, 33, 4)))
