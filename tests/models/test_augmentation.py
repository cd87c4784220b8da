"""Operations against Pillow's, policies that give every image its own, and edits of texts."""

import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from firmground.data.pairs import as_float
from firmground.errors import DataError
from firmground.models import image_operations as ops
from firmground.models.augmentation import IMAGENET, OPERATIONS, augment, magnitude, plans
from firmground.models.text_edits import edit_texts
from firmground.rng import stream

PICTURES = torch.rand(3, 3, 20, 24, generator=stream(0, "pictures")) ** torch.tensor([0.5, 1.0, 3.0]).view(3, 1, 1, 1)
BYTES = (PICTURES * 255).round().to(torch.uint8)


def by_pillow(change):
    """The pictures after a change of Pillow's, in [0, 1]."""
    changed = [change(Image.fromarray(one.permute(1, 2, 0).numpy())) for one in BYTES]
    arrays = [torch.tensor(list(one.tobytes()), dtype=torch.uint8).view(20, 24, 3).permute(2, 0, 1) for one in changed]
    return as_float(torch.stack(arrays))


@pytest.mark.parametrize(
    ("operation", "size", "change", "close"),
    [
        (ops.equalize, 0.0, ImageOps.equalize, 0),
        (ops.invert, 0.0, ImageOps.invert, 0),
        (ops.autocontrast, 0.0, ImageOps.autocontrast, 1),
        (ops.posterize, 5.0, lambda one: ImageOps.posterize(one, 5), 0),
        (ops.solarize, 100.5 / 255, lambda one: ImageOps.solarize(one, 101), 0),
        (ops.brightness, 0.6, lambda one: ImageEnhance.Brightness(one).enhance(0.6), 1),
        (ops.brightness, 1.7, lambda one: ImageEnhance.Brightness(one).enhance(1.7), 1),
        (ops.colour, 1.5, lambda one: ImageEnhance.Color(one).enhance(1.5), 2),
        (ops.contrast, 0.4, lambda one: ImageEnhance.Contrast(one).enhance(0.4), 2),
        (ops.sharpness, 0.1, lambda one: ImageEnhance.Sharpness(one).enhance(0.1), 2),
    ],
)
def test_operations_do_what_pillows_do(operation, size, change, close):
    found = operation(as_float(BYTES), torch.full((3,), size))
    assert (found - by_pillow(change)).abs().max() * 255 <= close + 0.01


def test_a_flat_image_stays():
    flat = torch.full((1, 3, 8, 8), 0.4)
    for operation in (ops.equalize, ops.autocontrast):
        assert torch.equal(operation(flat, torch.zeros(1)), flat)


def test_geometry():
    line = torch.arange(16.0) / 16
    images = line.expand(2, 3, 16, 16)
    moved = ops.translate_x(images, torch.tensor([0.25, 0.0]))
    torch.testing.assert_close(moved[0, 0, 0, :12], line[4:])
    torch.testing.assert_close(moved[1], images[1])
    torch.testing.assert_close(ops.translate_y(images.mT, torch.tensor([0.25, 0.0]))[0, 0, :12, 0], line[4:])
    turned = ops.rotate(images, torch.tensor([90.0, 0.0]))
    assert torch.allclose(turned[0], images[0].mT, atol=1e-4) or torch.allclose(
        turned[0].flip(1), images[0].mT, atol=1e-4
    )
    slanted = ops.shear_x(images, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(slanted[0, 0, 8, 4:8], line[4:8] + 0.5 / 16)
    torch.testing.assert_close(slanted[1], images[1])


@pytest.mark.parametrize("kind", ["auto", "trivial", "random"])
def test_policies_keep_range_shape_and_seed(kind):
    images = torch.rand(40, 3, 16, 16, generator=stream(1, "images"))
    before = images.clone()
    first, again = (augment(images, kind, rng=stream(0, "augment")) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(images, before)
    assert first.shape == images.shape
    assert 0 <= first.min() <= first.max() <= 1
    assert not torch.equal(first, augment(images, kind, rng=stream(1, "augment")))
    assert len({int(number) for plan in plans(40, kind, stream(0, "augment")) for number in plan.number}) > 5


def test_no_augmentation_is_a_copy():
    assert torch.equal(augment(PICTURES, "none", rng=stream(0, "augment")), PICTURES)
    with pytest.raises(DataError, match="among none, auto"):
        augment(PICTURES, "much", rng=stream(0, "augment"))


def test_autoaugments_policy():
    names = {name for name, _ in OPERATIONS}
    assert len(IMAGENET) == 25
    assert all(
        name in names and 0 <= chance <= 1 and 0 <= level <= 9 for pair in IMAGENET for name, chance, level in pair
    )
    one = torch.ones(1)
    assert magnitude("rotate", one, -one) == -30
    assert magnitude("posterize", one, one) == 4
    assert magnitude("solarize", 0 * one, one) == 1
    assert float(magnitude("contrast", one, -one)) == pytest.approx(0.1)


def test_edits_are_small_and_repeat():
    texts = ["a big red circle on a plain blue background"] * 60
    first, again = (edit_texts(texts, rng=stream(0, "edit")) for _ in range(2))
    assert first == again
    kinds = {"same words" if sorted(one.split()) == sorted(texts[0].split()) else len(one.split()) for one in first}
    assert {"same words", 8, 10} <= kinds, "swapped, deleted and inserted"
    assert any("disc" in one or "round shape" in one for one in first), "replaced"
    assert edit_texts(["circle", ""], rng=stream(0, "edit")) == ["circle", ""]
    with pytest.raises(DataError, match="rate of edits"):
        edit_texts(texts, rng=stream(0, "edit"), rate=0)


def test_texts_without_synonyms_are_edited_too():
    for seed in range(8):
        (edited,) = edit_texts(["one two three four"], rng=stream(seed, "edit"))
        assert set(edited.split()) <= {"one", "two", "three", "four"}
        assert 3 <= len(edited.split()) <= 5
