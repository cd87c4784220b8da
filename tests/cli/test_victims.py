"""`evaluate TASK --victim` and `harden` as users give them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from firmground.data.annotated_images import annotated_scenes
from firmground.data.annotation_writing import write_annotated
from firmground.data.encoding import png
from firmground.data.scenes import SceneWorld
from firmground.models.dual import DualEncoder
from firmground.models.victims.tiny import tiny_victim
from firmground.rng import stream

from .conftest import edit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three scenes, the same with noise on them, and victims."""
    folder = tmp_path_factory.mktemp("victims")
    data = annotated_scenes(SceneWorld(size=32, captions=2).scenes(3, seed=0), novel=("bolt",))
    write_annotated(data, folder / "scenes")
    (folder / "attacked").mkdir()
    for row, file in enumerate(data.files):
        noise = 0.1 * torch.randn(3, 32, 32, generator=stream(row))
        (folder / "attacked" / file).write_bytes(png(data.image(row) + noise))
    for kind in ("clipseg", "owlvit", "blip-captioning", "blip-vqa"):
        tiny_victim(kind).parts.save(folder / kind, card="random weights")
    return folder


@pytest.mark.parametrize(
    ("task", "victim", "metric"),
    [
        ("segmentation", "clipseg", "miou"),
        ("detection", "owlvit", "ap50"),
        ("captioning", "blip-captioning", "cider"),
        ("vqa", "blip-vqa", "accuracy"),
    ],
)
def test_clean_and_attacked_side_by_side(run, place, tmp_path, task, victim, metric):
    words = ("--victim", place / victim, "--images", place / "scenes", "--attacked", place / "attacked")
    files = ("--report", tmp_path / "report.html", "--record", tmp_path / "record.json")
    result = run("evaluate", task, *words, *files, "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["schema"], told["task"], told["images"]) == ("firmground/victim-evaluation/1", task, 3)
    for side in ("clean", "attacked"):
        found = told[side][metric]
        assert found["low"] <= found["value"] <= found["high"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figure>") == (15 if task == "segmentation" else 9)
    assert "what was changed, x" in page
    assert page.count("attacked: ") >= 3
    for file in files[1::2]:
        again = run("rerun", file, "--json")
        assert again.exit_code == 0, again.output
        assert json.loads(again.stdout)["evaluate"]["clean"] == told["clean"]


def test_clean_alone(run, place):
    result = run(
        "evaluate", "captioning", "--victim", place / "blip-captioning", "--images", place / "scenes", "--json"
    )
    told = json.loads(result.stdout)
    assert told["attacked"] is None
    assert told["drop"] is None


def test_what_a_victim_cannot_do_is_told(run, place, tmp_path):
    images = ("--images", place / "scenes")
    for words, code, said in (
        (("evaluate", "detection", "--victim", place / "clipseg", *images), 4, "it is made for: segmentation"),
        (("evaluate", "walking", "--victim", place / "clipseg", *images), 4, "no task 'walking'"),
        (("evaluate", "vqa", "--victim", place / "blip-vqa"), 4, "with --images"),
        (("evaluate", "clip", *images), 4, "name one with --victim"),
        (("evaluate", "clip", "--record", tmp_path / "r.json"), 4, "name one with --victim"),
        (("evaluate", "clip"), 4, "pass it with --data"),
        (("evaluate", "vqa", "--victim", place / "blip-vqa", "--images", tmp_path), 2, "annotations.json"),
        (("evaluate", "vqa", "--victim", tmp_path, *images), 2, "has no config.json"),
    ):
        result = run(*words)
        assert result.exit_code == code, (words, result.output)
        assert said in " ".join(result.output.split())


def test_harden_writes_an_encoder_and_says_what_it_bought(run, dual, tmp_path):
    (tmp_path / "photos" / "deeper").mkdir(parents=True)
    for number in range(24):
        Image.new("RGB", (40, 30), (10 * number, 100, 200)).save(tmp_path / "photos" / "deeper" / f"{number}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"x")
    out = tmp_path / "hard"
    words = ("--images", tmp_path / "photos", "--out", out, "--set", "epochs=1", "--set", "batch_size=8")
    record = tmp_path / "record.json"
    words += ("--device", "cpu", "--record", record)
    result = run("harden", dual, *words, "--set", "inner_steps=2", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["method"], told["images"], told["held_out"], told["steps"]) == ("fare", 22, 2, 2)
    assert told["left_out"] == ["1 row: cannot be read as an image"]
    assert DualEncoder.load(out).width == DualEncoder.load(dual).width
    assert "fare" in (out / "README.md").read_text()
    assert not Path(f"{out}.unfinished").exists()
    again = run("rerun", record, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["harden"]["weights_sha256"] == told["weights_sha256"]
    edit(record, lambda content: content["results"].update(weights_sha256="00", images=21))
    differences = json.loads(run("rerun", record, "--json").stdout)["differences"]
    assert differences[:2] == [
        "there were 21 images trained on and are now 22",
        "the weights of the hardened encoder are not those of then",
    ]


def test_an_evaluation_of_other_images_is_not_repeated(run, place, tmp_path):
    shutil.copytree(place / "scenes", tmp_path / "scenes")
    record = tmp_path / "record.json"
    words = ("--victim", place / "blip-captioning", "--images", tmp_path / "scenes", "--record", record)
    assert run("evaluate", "captioning", *words, "--device", "cpu").exit_code == 0
    edit(record, lambda content: content["results"]["clean"]["cider"].update(value=7.0))
    (difference,) = json.loads(run("rerun", record, "--json").stdout)["differences"]
    assert difference.startswith("CIDEr, clean, was 700.0")
    image = next((tmp_path / "scenes" / "images").glob("*.png"))
    image.write_bytes(image.read_bytes() + b"x")
    result = run("rerun", record)
    assert result.exit_code == 2
    assert f"{image.name} has changed" in " ".join(result.stderr.split())


def test_tecoa_needs_classes(run, dual, table, tmp_path):
    words = ("--method", "tecoa", "--set", "epochs=1", "--set", "inner_steps=1", "--set", "batch_size=8")
    alone = run("harden", dual, "--images", table, "--out", tmp_path / "hard", *words)
    assert alone.exit_code == 4
    assert "needs classes" in alone.output
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    result = run(
        "harden", dual, "--images", table, "--out", tmp_path / "hard", *words, "--classes", tmp_path / "classes.txt"
    )
    assert result.exit_code == 0, result.output
