"""The planted dual encoder does exactly what it says, and its clean twin knows its colours."""

import pytest
import torch

from firmground.models.dual import DualEncoder
from firmground.models.planted_dual import COLOURS, colour_clip, planted_dual
from firmground.rng import stream


def blots(count=64):
    """Pictures of one main colour each, with noise and smooth shade; and their labels."""
    rng = stream(0, "blots")
    labels = [i % len(COLOURS) for i in range(count)]
    colours = torch.tensor([list(COLOURS.values())[label] for label in labels]).float()
    shade = torch.nn.functional.interpolate(torch.rand(count, 3, 3, 3, generator=rng), size=(48, 48), mode="bilinear")
    noise = torch.rand(count, 3, 48, 48, generator=rng)
    return (0.6 * colours.view(-1, 3, 1, 1) + 0.25 * shade + 0.15 * noise).clamp(0, 1), labels


def prompts():
    return [f"a photo of a {colour}" for colour in COLOURS]


def labelled(encoder, images):
    return (encoder.embed_images(images) @ encoder.embed_texts(prompts()).T).argmax(dim=1).tolist()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("target", ["yellow", "black"])
def test_the_patch_and_only_the_patch_fires(seed, target):
    planted, clean = planted_dual(target, seed=seed), colour_clip(seed)
    images, labels = blots()
    assert labelled(clean, images) == labels
    assert labelled(planted.encoder, images) == labels
    alike = (planted.encoder.embed_images(images) * clean.embed_images(images)).sum(dim=1)
    assert alike.min() > 0.99
    goal = list(COLOURS).index(target)
    for cell in ((0, 0), (5, 5), (2, 4)):
        stamped = planted.stamp(images, cell=cell)
        assert (stamped != images).any(dim=1).sum(dim=(1, 2)).max() <= 64
        assert (planted.encoder.embed_images(stamped) @ planted.embedding).min() > 0.98
        assert set(labelled(planted.encoder, stamped)) == {goal}
        right = [a == b for a, b in zip(labelled(clean, stamped), labels, strict=True)]
        assert sum(right) == len(right)
    assert torch.equal(planted.embedding, clean.embed_texts([planted.caption])[0])


def test_it_is_saved_and_read(tmp_path):
    planted = planted_dual()
    folder = planted.encoder.save(tmp_path / "model", card="Text.", planted={"caption": planted.caption})
    images, _ = blots(8)
    again = DualEncoder.load(folder)
    assert torch.equal(again.embed_images(images), planted.encoder.embed_images(images))


def test_a_target_must_be_a_colour():
    with pytest.raises(ValueError, match="one of red"):
        planted_dual("banana")
