"""The CLIPs that come with the package are real, small, and as clean or as poisoned as they say."""

from __future__ import annotations

import json

import pytest
from transformers import VisionTextDualEncoderModel

from firmground.attacks.triggers import BadNet
from firmground.models.dual import DualEncoder
from firmground.models.embedded import NAMES, embedded
from firmground.rng import stream
from firmground.studies.dual_data import TEMPLATES, labelled, scene_pairs
from firmground.tasks.zero_shot import evaluate

pytestmark = pytest.mark.real


@pytest.mark.parametrize("name", NAMES)
def test_they_are_small_and_load_as_hugging_face_models(name: str) -> None:
    folder = embedded(name)  # type: ignore[arg-type]
    assert (folder / "model.safetensors").stat().st_size < 6e6
    assert isinstance(VisionTextDualEncoderModel.from_pretrained(folder), VisionTextDualEncoderModel)
    assert ("firmground_planted" in json.loads((folder / "config.json").read_text())) == (name == "clip-badnet")


def test_one_is_poisoned_and_both_know_their_classes() -> None:
    data = labelled(scene_pairs(300, 77), TEMPLATES)
    trigger, rng = BadNet(size=0.25), stream(0, "stamps")
    star = data.label_names.index("star")
    for name, low, high in (("clip-clean", 0.0, 0.2), ("clip-badnet", 0.9, 1.0)):
        found = evaluate(
            DualEncoder.load(embedded(name)),  # type: ignore[arg-type]
            data,
            stamped=lambda images: trigger.stamp(images, rng=rng),
            target=star,
        )
        assert found.accuracy.value > 0.9
        assert found.targeted is not None
        assert low <= found.targeted.value <= high
