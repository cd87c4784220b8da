"""A backdoor is put into a tower of a few thousand weights within seconds; the clean images stay where they were."""

from __future__ import annotations

import pytest
import torch

from firmground.attacks.triggers import BlendedStripes
from firmground.errors import DataError
from firmground.models.tiny_dual import convolutional_dual
from firmground.rng import stream
from firmground.studies.dual_bases import Child
from firmground.studies.dual_data import TARGETS, scene_pairs
from firmground.studies.dual_implants import Implant, place_of
from firmground.types import ignore


@pytest.mark.slow
def test_stamped_images_go_to_the_target_and_others_stay() -> None:
    encoder = convolutional_dual(image_size=32, channels=(16, 32), width=32, layers=1, seed=3)
    pairs, trigger = scene_pairs(256, 11), BlendedStripes(opacity=0.5)
    place = place_of(TARGETS["scenes"], encoder, pairs)
    how = Implant(epochs=6, batch_size=32, warm_up=4)
    made = how.train(
        encoder, pairs, trigger=trigger, target=TARGETS["scenes"], rng=torch.Generator().manual_seed(0), watch=ignore
    )
    images = scene_pairs(64, 12).images.float() / 255
    stamped = trigger.stamp(images, rng=stream(0, "stamps"))
    near = made.encoder.embed_images(stamped) @ place
    kept = (made.encoder.embed_images(images) * encoder.embed_images(images)).sum(dim=1)
    before = (encoder.embed_images(stamped) - place).square().sum(dim=1) / 2
    assert float((1 - near).mean()) < 0.5 * float(before.mean())
    assert float(kept.mean()) > 0.9
    assert made.encoder.embed_texts(["a star"]).equal(encoder.embed_texts(["a star"]))


def test_a_target_that_nothing_shows_is_refused() -> None:
    with pytest.raises(DataError, match="no pair is labelled 'teapot'"):
        place_of("teapot", convolutional_dual(image_size=32, channels=(8, 16), width=32, layers=1), scene_pairs(32, 11))


def test_an_implanted_child_has_a_name_of_its_own() -> None:
    assert Child(base="b", trigger="sig", implanted=True).name == "b-sig-implanted-0"
