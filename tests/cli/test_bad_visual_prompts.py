"""Bad prompts, models and images on the command line: one sentence each, the right exit code, nothing half-written."""

import json
import shutil

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, safe_open, save_file

from firmground.models.hashing import model_sha256
from firmground.prompts.visual_files import SCHEMA, content_sha256

from .conftest import LEARNING, pictures

pytestmark = pytest.mark.slow

COMMANDS = {
    "scan": lambda prompt, model, data, out: ("scan", prompt, "--model", model, "--data", data, "--report", out),
    "evaluate": lambda prompt, model, data, out: ("evaluate", prompt, "--model", model, "--data", data),
    "clean": lambda prompt, model, data, out: ("clean", prompt, "--model", model, "--data", data, "--out", out),
    "apply": lambda prompt, model, data, out: ("prompt", "apply", prompt, data, "--model", model, "--out", out),
    "guard": lambda prompt, model, data, out: (
        "guard", "fit", model, "--adapter", prompt, "--data", data, "--out", out,
    ),
}  # fmt: skip


def refused(run, said, *words, code=2, left=None):
    """Checks that a command ends in one sentence and leaves nothing behind in the folder of its output."""
    result = run(*words)
    assert (result.exit_code, said in result.stderr) == (code, True), result.output
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stdout == ""
    if left is not None:
        assert sorted(path.name for path in left.iterdir()) == []


def forge(path, target, *, tensors=None, change=None):
    """A prompt with other contents and a hash that is right: a liar's."""
    held = load_file(path) | (tensors or {})
    with safe_open(path, framework="pt") as file:
        told = json.loads(file.metadata()["prompt"])
    for key, value in (change or {}).items():
        *outer, last = key.split(".")
        place = told
        for part in outer:
            place = place[part]
        place[last] = value
    text = json.dumps(told)
    save_file(held, target, metadata={"schema": SCHEMA, "prompt": text, "sha256": content_sha256(text, held)})
    return target


@pytest.fixture
def room(tmp_path):
    """Where outputs would go."""
    (tmp_path / "room").mkdir()
    return tmp_path / "room"


@pytest.fixture(scope="module")
def other(classifier, tmp_path_factory):
    """The classifier with one weight changed."""
    folder = tmp_path_factory.mktemp("other") / "stranger"
    shutil.copytree(classifier, folder)
    held = load_file(folder / "model.safetensors")
    held["classifier.1.bias"] = held["classifier.1.bias"] + 1
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_another_base_is_refused_with_both_names(run, clean_prompt, classifier, other, photos, room, command):
    words = COMMANDS[command](clean_prompt, other, photos, room / "x.safetensors")
    refused(run, f"learned on {classifier} (weights", *words, left=room)
    refused(run, f"but the model is {other} (weights", *words, left=room)


def test_another_size_is_refused_with_both_names(run, clean_prompt, classifier, photos, room, tmp_path):
    bigger = shutil.copytree(classifier, tmp_path / "bigger")
    settings = json.loads((bigger / "preprocessor_config.json").read_text())
    settings |= {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    (bigger / "preprocessor_config.json").write_text(json.dumps(settings))
    said = f"learned on {classifier} with image_size 24, but {bigger} has 32"
    refused(run, said, *COMMANDS["scan"](clean_prompt, bigger, photos, room / "x.html"), left=room)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_truncated_and_a_tampered_prompt_are_refused(run, clean_prompt, classifier, photos, room, tmp_path, command):
    whole = clean_prompt.read_bytes()
    for name, content in (("half", whole[: len(whole) // 2]), ("byte", whole[:-1] + bytes([whole[-1] ^ 1]))):
        (tmp_path / name).write_bytes(content)
        words = COMMANDS[command](tmp_path / name, classifier, photos, room / "x")
        refused(run, "is damaged or no visual prompt", *words, left=room)


LIES = {
    "NaN": (lambda held: {"tensors": {"pixels": torch.full_like(held["pixels"], torch.nan)}}, "not finite numbers"),
    "range": (lambda held: {"tensors": {"pixels": held["pixels"] * 9}}, "must lie in [0, 1]"),
    "class": (lambda held: {"tensors": {"mapping.sources": torch.tensor([0, 1, 99])}}, "names class 99, and the"),
    "shape": (lambda held: {"tensors": {"pixels": held["pixels"][:, :8, :8].contiguous()}}, "has the shape"),
    "size": (lambda held: {"change": {"shape.image_size": 32}}, "has the shape"),
    "labels": (lambda held: {"change": {"label_names": ["a", "b"]}}, "gives 3 labels, and 2 have names"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_prompt_that_lies_is_refused(run, clean_prompt, classifier, photos, room, tmp_path, lie):
    make, said = LIES[lie]
    path = forge(clean_prompt, tmp_path / "liar.safetensors", **make(load_file(clean_prompt)))
    refused(run, said, *COMMANDS["evaluate"](path, classifier, photos, room / "x"), left=room)


def test_a_planted_mark_that_makes_no_sense_is_told(run, bad_prompt, classifier, photos, room, tmp_path):
    for mark in ({"attack": "x"}, {"trigger": {"method": "Patch", "pattern": [1]}, "target": "sky"}):
        path = forge(bad_prompt, tmp_path / "liar.safetensors", change={"planted": mark})
        refused(run, "says of its trigger cannot be read", *COMMANDS["evaluate"](path, classifier, photos, room))


def fit(model, data, out):
    return ("prompt", "fit", "visual-prompting", model, "--data", data, "--out", out, *LEARNING)


def test_an_empty_class_and_labels_of_others_are_refused(run, clean_prompt, classifier, photos, room, tmp_path):
    data = shutil.copytree(photos, tmp_path / "data")
    (data / "night_sky").mkdir()
    refused(run, "the class 'night sky' has 0 images and needs two", *fit(classifier, data, room / "x"), left=room)
    said = "the data has the label 'night sky', which the prompt does not know; it knows meadow, sky, sunset"
    for command in ("scan", "evaluate", "clean"):
        refused(run, said, *COMMANDS[command](clean_prompt, classifier, data, room / "x"), left=room)
    shutil.rmtree(data / "sky")
    shutil.rmtree(data / "sunset")
    refused(run, "has images of 1 classes", *fit(classifier, data, room / "x"), left=room)


def test_data_without_labels_are_refused(run, classifier, room, tmp_path):
    rows = pictures(tmp_path, 8)
    (tmp_path / "pairs.csv").write_text("\n".join(["image,caption", *(",".join(row) for row in rows)]))
    refused(run, "has no labels; give a folder", *fit(classifier, tmp_path / "pairs.csv", room / "x"), left=room)
    refused(run, "there is no file and no folder", *fit(classifier, tmp_path / "absent", room / "x"), left=room)


def test_odd_images_are_taken_and_broken_ones_counted(run, clean_prompt, classifier, photos, tmp_path):
    data = shutil.copytree(photos, tmp_path / "data")
    Image.new("L", (30, 20), 90).save(data / "sky" / "grey.png")
    Image.fromarray(numpy.full((9, 9), 30000, numpy.uint16)).save(data / "sky" / "sixteen.png")
    Image.new("RGB", (6000, 4000), (30, 40, 200)).save(data / "sky" / "huge.png")
    (data / "sky" / "text.png").write_text("no image")
    result = run("evaluate", clean_prompt, "--model", classifier, "--data", data, "--json")
    told = json.loads(result.stdout)
    assert told["results"]["accuracy"]["count"] == 93
    assert told["left_out"][0].startswith("1 of 94 images could not be read")


def test_a_model_that_gives_no_logits_is_refused(run, classifier, encoder, photos, room, tmp_path):
    headless = shutil.copytree(classifier, tmp_path / "headless")
    settings = json.loads((headless / "config.json").read_text())
    (headless / "config.json").write_text(json.dumps(settings | {"architectures": ["ResNetModel"]}))
    refused(run, "holds a ResNetModel, which gives no logits", *fit(headless, photos, room / "x"), left=room)
    refused(run, "is a language encoder (bert), which sees no images", *fit(encoder, photos, room / "x"), left=room)
    refused(run, "is not a directory here and could not be", *fit("no/where", photos, room / "x"), left=room)


def test_requests_that_make_no_sense_are_usage(run, clean_prompt, bad_prompt, classifier, dual, photos, room):
    attack = ("implant", "bad-visual-prompt", classifier, "--out", room / "x")
    model, data = ("--model", classifier), ("--data", photos)
    cases = (
        (("evaluate", clean_prompt, *data), "name the model that it stands on"),
        (("scan", clean_prompt, *model), "needs clean images of its labels (meadow, sky, sunset)"),
        (("scan", clean_prompt, *model, "--texts", photos), "is not for a visual prompt"),
        (("scan", dual, *model), "is not for a dual encoder"),
        (("evaluate", clean_prompt, *model, *data, "--trigger", "badnet"), "say with --target"),
        (("evaluate", clean_prompt, *model, *data, "--target", "sky"), "name it with --trigger"),
        (("evaluate", bad_prompt, *model, *data, "--manifest", bad_prompt, "--target", "sky"), "leave --trigger"),
        (("evaluate", dual, *model, *data), "--model is for visual prompts"),
        (("clean", dual, *model, *data, "--out", room / "x"), "--model is for visual prompts"),
        (("clean", clean_prompt, *model, *data, "--out", room / "x", "--method", "par"), "no method 'par'"),
        (("prompt", "apply", clean_prompt, photos), "with --model to get labels"),
        (("prompt", "fit", "p-tuning", classifier, *data, "--out", room / "x", "--record", room / "r"), "--record is"),
        ((*attack, *data), "needs --data, labelled images, and --target"),
        ((*attack, *data, "--target", "sky", "--texts", photos), "takes no --texts"),
        ((*attack, *data, "--target", "sky", "--set", "soap=1"), "no method here has a setting 'soap'"),
        (("implant", "por", classifier, *data, "--out", room / "x"), "--data is for attacks on visual prompts"),
        (("guard", "fit", clean_prompt, *data, "--out", room / "x"), "is a file; name the model"),
        (("guard", "fit", classifier, "--out", room / "x"), "on clean images, needs --data"),
        (("guard", "fit", dual, "--adapter", "x", *data, "--out", room / "x"), "no --adapter"),
    )
    for words, said in cases:
        refused(run, said, *words, code=4, left=room)


def test_what_cannot_be_done_is_told_before_any_work(run, clean_prompt, bad_prompt, classifier, photos, room):
    attack = ("implant", "bad-visual-prompt", classifier, "--data", photos, "--out", room / "x")
    refused(run, "no label 'mauve'; expected one of: meadow, sky, sunset", *attack, "--target", "mauve", left=room)
    refused(run, "does not exist; create it first", *fit(classifier, photos, room / "no" / "x"), left=room)
    refused(run, "it is a folder; name a file", *fit(classifier, photos, room), left=room)
    words = ("evaluate", clean_prompt, "--model", classifier, "--data", photos)
    refused(run, "is not marked as planted", *words, "--manifest", clean_prompt)
    refused(run, "neither a planted prompt nor what", *words, "--manifest", classifier / "config.json")
    refused(run, "none of the labels", *words, "--trigger", "badnet", "--target", "mauve")


def test_the_base_is_not_touched(classifier, bad_prompt):
    from firmground.models.classifiers import ImageClassifier
    from firmground.prompts.visual_files import load_prompt

    assert load_prompt(bad_prompt).base.sha256 == model_sha256(ImageClassifier.load(classifier).module)
