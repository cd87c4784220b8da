"""The file of a visual prompt: it comes back as it was, and whatever is wrong with one is said in a sentence."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from visual_scenes import SIZE, WIDTH, coloured, gated

from firmground.errors import AdapterError, DataError, OutputError
from firmground.prompts.mappings import LabelMapping
from firmground.prompts.prompted import LearnedPrompt, describe_base
from firmground.prompts.visual import PromptShape, VisualPrompt
from firmground.prompts.visual_files import SCHEMA, content_sha256, is_visual_prompt, load_prompt, save_prompt
from firmground.types import Interval

SHAPE = PromptShape(form="padding", image_size=SIZE, width=WIDTH)
SOURCES = LabelMapping(kind="iterated", classes=5, sources=torch.tensor([4, 2, 0]))
LINEAR = LabelMapping(kind="fully-connected", classes=5, weight=torch.eye(3, 5), bias=torch.ones(3))


def learned(mapping=SOURCES):
    return LearnedPrompt(
        prompt=VisualPrompt(shape=SHAPE, pixels=0.25 * SHAPE.border.expand(3, -1, -1)),
        mapping=mapping,
        base=describe_base(gated()),
        label_names=("reddish", "greenish", "bluish"),
        accuracy=Interval(value=0.9, low=0.8, high=0.95, count=12),
        method="visual-prompting",
        settings={"epochs": 3},
        measurements={"seconds": 1.5},
    )


@pytest.fixture
def path(tmp_path):
    return save_prompt(learned(), tmp_path / "prompt.safetensors")


def forge(path, *, facts=None, tensors=None, schema=SCHEMA, drop=()):
    """Writes the file anew with other contents and a hash that is right: a liar's, not an accident's."""
    held = {name: value for name, value in load_file(path).items() if name not in drop} | (tensors or {})
    with safe_open(path, framework="pt") as file:
        told = json.loads(file.metadata()["prompt"])
    for key, value in (facts or {}).items():
        *outer, last = key.split(".")
        place = told
        for part in outer:
            place = place[part]
        place.pop(last) if value is ... else place.update({last: value})
    text = json.dumps(told)
    save_file(held, path, metadata={"schema": schema, "prompt": text, "sha256": content_sha256(text, held)})
    return path


@pytest.mark.parametrize("mapping", [SOURCES, LINEAR], ids=lambda mapping: mapping.kind)
def test_comes_back_as_it_was(mapping, tmp_path):
    given = learned(mapping)
    again = load_prompt(save_prompt(given, tmp_path / "prompt.safetensors"))
    assert torch.equal(again.prompt.pixels, given.prompt.pixels)
    for name in ("sources", "weight", "bias"):
        ours, theirs = getattr(given.mapping, name), getattr(again.mapping, name)
        assert ours is theirs is None or torch.equal(ours, theirs)
    same = ("base", "label_names", "accuracy", "method", "settings", "measurements", "planted")
    assert [getattr(again, name) for name in same] == [getattr(given, name) for name in same]
    images = coloured(6).images
    assert torch.equal(again.on(gated()).logits(images), given.on(gated()).logits(images))
    assert [file.name for file in tmp_path.iterdir()] == ["prompt.safetensors"]
    assert is_visual_prompt(tmp_path / "prompt.safetensors")


def test_another_base_is_refused(path):
    with pytest.raises(AdapterError, match=r"learned on gated .* but the model is other"):
        load_prompt(path).on(gated(3.0, source="other"))


def test_the_same_weights_read_otherwise_are_refused(path):
    base = gated()
    other = dataclasses.replace(base, preprocessing=dataclasses.replace(base.preprocessing, mean=(0.5, 0.5, 0.5)))
    with pytest.raises(AdapterError, match="learned on gated with mean"):
        load_prompt(path).on(other)


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "a file").touch()
    with pytest.raises(OutputError, match="could not be written"):
        save_prompt(learned(), tmp_path / "a file" / "prompt.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


def test_a_truncated_file_is_refused_wherever_it_ends(path):
    whole = path.read_bytes()
    for end in (*range(0, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match="damaged or no visual prompt"):
            load_prompt(path)


def test_a_changed_byte_is_found_wherever_it_is(path):
    whole = path.read_bytes()
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[:150].tolist()
    for at in order:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        with pytest.raises(DataError) as caught:
            load_prompt(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600


OUTSIDE = torch.ones(3, SIZE, SIZE) * 0.5
LIES = {
    "another schema": ({"schema": "firmground/guard/1"}, "its schema is 'firmground/guard/1'"),
    "no pixels": ({"drop": ("pixels",)}, "it lacks 'pixels'"),
    "a tensor too many": ({"tensors": {"payload": torch.zeros(2)}}, "holds 'payload', which no prompt has"),
    "other kinds of number": ({"tensors": {"pixels": OUTSIDE.half()}}, "expected float32 or int64"),
    "NaN": ({"tensors": {"pixels": torch.full((3, SIZE, SIZE), torch.nan)}}, "not finite numbers"),
    "infinity": ({"tensors": {"pixels": torch.full((3, SIZE, SIZE), torch.inf)}}, "not finite numbers"),
    "pixels out of range": ({"tensors": {"pixels": 3 * SHAPE.border.expand(3, -1, -1)}}, r"must lie in \[0, 1\]"),
    "pixels under the image": ({"tensors": {"pixels": OUTSIDE}}, "nothing inside its border"),
    "pixels of another size": ({"tensors": {"pixels": torch.zeros(3, 8, 8)}}, "has the shape"),
    "whole pixels": ({"tensors": {"pixels": torch.zeros(3, SIZE, SIZE, dtype=torch.int64)}}, "has the shape"),
    "another form": ({"facts": {"shape.form": "full-picture"}}, "expected a form among"),
    "a form of another size": ({"facts": {"shape.form": "fixed-patch", "shape.side": 5}}, "has the shape"),
    "a huge canvas": ({"facts": {"shape.image_size": 10**12}}, "expected 0 to 4096 pixels"),
    "a canvas of a fraction": ({"facts": {"shape.image_size": 24.0}}, "expected 0 to 4096 pixels"),
    "a base of another size": ({"facts": {"base.image_size": 32}}, "gated sees 32"),
    "a class that is not there": ({"tensors": {"mapping.sources": torch.tensor([4, 2, 9])}}, "names class 9"),
    "a class below all": ({"tensors": {"mapping.sources": torch.tensor([4, 2, -1])}}, "names class -1"),
    "another count of classes": ({"facts": {"base.class_names": ["a", "b", "c"]}}, "names class 4"),
    "another mapping": ({"facts": {"mapping": "fully-connected"}}, "has a weight and a bias"),
    "an unknown mapping": ({"facts": {"mapping": ["index"]}}, "expected a label mapping among"),
    "a label too few": ({"facts": {"label_names": ["reddish", "greenish"]}}, "gives 3 labels, and 2 have names"),
    "labels that are no texts": ({"facts": {"label_names": [1, 2, 3]}}, "label_names is no list of texts"),
    "a base without a hash": ({"facts": {"base.sha256": None}}, "the sha256 of its base is 'None'"),
    "a mean too few": ({"facts": {"base.mean": [0.5]}}, "three means"),
    "a mean that is none": ({"facts": {"base.mean": ["a", "b", "c"]}}, "damaged or no visual prompt"),
    "a template without a place": ({"facts": {"base.templates": ["a photo"]}}, "no {} for the name"),
    "no shape": ({"facts": {"shape": ...}}, "it lacks 'shape'"),
    "a shape that is a list": ({"facts": {"shape": [1]}}, "an object with the fields of PromptShape"),
    "settings that are none": ({"facts": {"settings": 7}}, "damaged or no visual prompt"),
}


@pytest.mark.parametrize("lie", LIES)
def test_metadata_that_lie_are_refused_in_one_sentence(path, lie):
    change, advice = LIES[lie]
    with pytest.raises(DataError, match=advice) as caught:
        load_prompt(forge(path, **change))
    assert "\n" not in str(caught.value)


def test_keys_that_nobody_knows_are_left_out(path):
    assert load_prompt(forge(path, facts={"base.colour": "red"})).label_names == learned().label_names


def test_a_file_from_before_there_were_tokens_is_read(path):
    without = dict.fromkeys(("shape.count", "shape.layers", "shape.channels"), ...)
    assert load_prompt(forge(path, facts=without)).prompt.shape == SHAPE


def test_other_files_are_no_prompts(tmp_path):
    for content in (b"", b"\x80\x04K\x01.", b"{}", b"\xff" * 64):
        other = tmp_path / "other"
        other.write_bytes(content)
        assert not is_visual_prompt(other)
        with pytest.raises(DataError, match="damaged or no visual prompt"):
            load_prompt(other)
    with pytest.raises(DataError, match="there is no prompt"):
        load_prompt(tmp_path)
