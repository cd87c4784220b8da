"""Victims of the real transformers classes, built small: loaded, attacked and evaluated end to end."""

import json

import pytest
import torch

from firmground.attacks.evasion import PRM
from firmground.data.annotated_images import annotated_scenes
from firmground.data.scenes import SceneWorld
from firmground.errors import BrokenModelError, DataError, UnsafeModelError, UnsupportedModelError
from firmground.models.victims.loading import VERBS, load_victim, tasks_of
from firmground.models.victims.tiny import KINDS, tiny_victim
from firmground.rng import stream
from firmground.tasks import captioning, detection, question_answering, segmentation

IMAGES = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
NAMES = ("background", "red house", "dog", "tree")
TASKS = {
    "segmentation": segmentation,
    "detection": detection,
    "captioning": captioning,
    "vqa": question_answering,
}


def answers(victim, task, images):
    match task:
        case "segmentation":
            return victim.segment(images, NAMES)
        case "detection":
            return torch.cat([one.boxes for one in victim.detect(images, NAMES[1:])])
        case "captioning":
            return victim.caption(images)
    return victim.answer(images, ["is there a dog ?", "what is this"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_saved_loaded_attacked_and_evaluated(kind, tmp_path):
    victim = tiny_victim(kind)
    victim.parts.save(tmp_path / "victim", card="random weights")
    loaded = load_victim(tmp_path / "victim")
    assert type(loaded) is type(victim)
    assert tasks_of(loaded)
    data = annotated_scenes(SceneWorld(size=32).scenes(2, seed=0))
    attack = PRM(steps=2, epsilon=16 / 255)
    attacked = attack.perturb(loaded.parts.surrogate(), torch.stack([data.image(0), data.image(1)]), rng=stream(0))
    assert sum(attacked.after) < sum(attacked.before)
    for task in tasks_of(loaded):
        same = answers(victim, task, IMAGES), answers(loaded, task, IMAGES)
        assert torch.equal(*same) if isinstance(same[0], torch.Tensor) else same[0] == same[1]
        for own in (data, data.with_images(attacked.images)):
            result = TASKS[task].evaluate(loaded, own, batch_size=32, rng=stream(0))
            assert 0 <= result.headline.low <= result.headline.value <= result.headline.high


def test_clipseg_is_transformers_own_forward_pass():
    victim = tiny_victim("clipseg")
    parts, shown = victim.parts, NAMES[1:]
    prompts = parts.tokenize([victim.template.format(name) for name in shown], most=32)
    pixels = parts.pixels(IMAGES[:1], whole=True).repeat(len(shown), 1, 1, 1)
    logits = parts.model(pixel_values=pixels, input_ids=prompts.ids, attention_mask=prompts.mask).logits
    probability = torch.nn.functional.interpolate(
        logits[None], size=IMAGES.shape[-2:], mode="bilinear", align_corners=False
    ).sigmoid()
    best, place = probability.max(dim=1)
    expected = torch.where(best > victim.threshold, place + 1, 0)
    assert torch.equal(victim.segment(IMAGES[:1], NAMES), expected)
    assert len(expected.unique()) > 1


@pytest.mark.parametrize("kind", ["owlvit", "owlv2"])
def test_owl_is_transformers_own_forward_pass_and_post_processing(kind):
    from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil
    from transformers.models.owlvit.image_processing_pil_owlvit import OwlViTImageProcessorPil

    victim = tiny_victim(kind)
    parts, names = victim.parts, NAMES[1:]
    prompts = parts.tokenize([victim.template.format(name) for name in names], most=32)
    images = IMAGES if kind == "owlvit" else torch.nn.functional.pad(IMAGES, (0, 0, 0, 8))
    outputs = parts.model(
        input_ids=prompts.ids.repeat(2, 1),
        attention_mask=prompts.mask.repeat(2, 1),
        pixel_values=parts.pixels(images, whole=True),
    )
    processor = OwlViTImageProcessorPil() if kind == "owlvit" else Owlv2ImageProcessorPil()
    size = tuple(IMAGES.shape[-2:])
    expected = processor.post_process_object_detection(outputs, threshold=0.01, target_sizes=[size, size])
    for found, own in zip(victim.detect(IMAGES, names), expected, strict=True):
        order = own["scores"].argsort(descending=True, stable=True)
        limits = torch.tensor([48.0, 40, 48, 40])
        torch.testing.assert_close(found.scores, own["scores"][order])
        torch.testing.assert_close(found.boxes, own["boxes"][order].clamp(min=0).minimum(limits))
        assert torch.equal(found.labels, own["labels"][order])


def test_llava_sees_the_image():
    victim = tiny_victim("llava")
    said = victim.answer(IMAGES, ["what is this"] * 2), victim.answer(1 - IMAGES, ["what is this"] * 2)
    assert said[0] != said[1]


def test_what_a_victim_needs(tmp_path):
    tiny_victim("blip-vqa").parts.save(tmp_path / "whole", card="random weights")

    def without(name):
        folder = tmp_path / f"without {name}"
        folder.mkdir()
        for path in (tmp_path / "whole").iterdir():
            if path.name != name:
                (folder / path.name).write_bytes(path.read_bytes())
        return folder

    with pytest.raises(BrokenModelError, match="has no tokenizer"):
        load_victim(without("tokenizer.json"))
    with pytest.raises(BrokenModelError, match=r"has no preprocessor_config\.json"):
        load_victim(without("preprocessor_config.json"))
    pickled = without("model.safetensors")
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UnsafeModelError, match="pickle"):
        load_victim(pickled)
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    (tmp_path / "whole" / "config.json").write_text(json.dumps(config | {"architectures": ["BlipModel"]}))
    with pytest.raises(UnsupportedModelError, match="BlipForQuestionAnswering"):
        load_victim(tmp_path / "whole")


def test_a_llava_whose_tokenizer_knows_no_image(tmp_path):
    victim = tiny_victim("llava")
    victim.parts.model.config.image_token_index = 5
    victim.parts.save(tmp_path / "victim", card="random weights")
    with pytest.raises(BrokenModelError, match="<image>"):
        load_victim(tmp_path / "victim")


def test_an_empty_question():
    with pytest.raises(DataError, match="question 1 is empty"):
        tiny_victim("blip-vqa").answer(IMAGES, ["what is this", " "])


def test_every_task_has_a_victim():
    found = {task for kind in KINDS for task in tasks_of(tiny_victim(kind))}
    assert found == set(VERBS)
