"""`firmground perturb`: images in, adversarial images out, each in the manifest; bad input, a kill, and a rerun."""

import hashlib
import json

import pytest
import torch
from PIL import Image

from firmground.attacks.evasion import PRM
from firmground.data.decoding import decode
from firmground.models.victims.tiny import tiny_victim

from .conftest import picture, shade

BRIEF = ("--steps", 2, "--set", "batch_size=2", "--device", "cpu")


@pytest.fixture
def images(tmp_path):
    """Five pictures of 48 pixels, one grey, one see-through, one huge, two broken, and a text."""
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    for row in range(5):
        picture(shade(row)).save(folder / ("inner" if row == 4 else "") / f"{row}.png")
    Image.new("L", (60, 40), 100).save(folder / "grey.jpg")
    Image.new("RGBA", (48, 48), (10, 20, 200, 90)).save(folder / "alpha.png")
    Image.new("RGB", (900, 60), "olive").save(folder / "huge.bmp")
    (folder / "broken.png").write_bytes(b"no picture")
    picture(shade(6)).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:1200])
    (folder / "notes.txt").write_text("no image")
    return folder


def told(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def pixels(path):
    return decode(path.read_bytes(), None).float()


def test_every_image_is_made_within_epsilon_and_is_in_the_manifest(run, dual, images, tmp_path):
    out = tmp_path / "out"
    words = ("--encoder", dual, "--epsilon", "8/255", "--out", out, "--largest", 200, *BRIEF, "--json")
    said = told(run("perturb", "pgd", images, *words))
    manifest = json.loads((out / "manifest.json").read_text())
    assert {**manifest, "out": said["out"]} == said
    names = {"0.png", "1.png", "2.png", "3.png", "inner/4.png", "grey.png", "alpha.png", "huge.png"}
    assert {row["file"] for row in manifest["images"]} == names
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == names | {"manifest.json"}
    assert sorted(manifest["left_out"]) == [
        "1 file: cannot be decoded",
        "1 file: cannot be read as an image",
        "1 file: larger than 200 pixels, made smaller",
    ]
    assert manifest["epsilon"] == pytest.approx(8 / 255)
    assert manifest["settings"]["steps"] == 2
    for row in manifest["images"]:
        data = (out / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert 0 < row["distance"] <= 8 / 255
        assert (row["height"], row["width"]) == tuple(pixels(out / row["file"]).shape[-2:])
    for name in ("0.png", "inner/4.png"):
        assert (pixels(out / name) - pixels(images / name)).abs().max() <= 8
    assert pixels(out / "huge.png").shape == (3, 13, 200)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_and_comes_out_the_same(run, dual, images, tmp_path, monkeypatch):
    words = ("--encoder", dual, *BRIEF, "--json")
    whole = told(run("perturb", "prm", images, *words, "--out", tmp_path / "whole"))
    calls, real = [], PRM.perturb

    def killed(self, *args, **extra):
        calls.append(len(args[1]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *args, **extra)

    monkeypatch.setattr(PRM, "perturb", killed)
    out = tmp_path / "out"
    result = run("perturb", "prm", images, *words, "--out", out)
    assert result.exit_code == 2
    assert not out.exists()
    assert (
        "holds another unfinished run: its seed"
        in run("perturb", "prm", images, *words, "--seed", 1, "--out", out).stderr
    )
    result = run("perturb", "prm", images, *words, "--out", out)
    assert "Going on from" in result.stderr
    again = told(result)
    assert [row["sha256"] for row in again["images"]] == [row["sha256"] for row in whole["images"]]
    assert len(calls) == 3 + 4  # of six batches two had been done
    assert not list(out.rglob("step-*"))
    assert not out.with_name("out.unfinished").exists()


@pytest.mark.slow
def test_the_record_repeats_the_run(run, dual, images, tmp_path):
    record, report = tmp_path / "record.json", tmp_path / "report.html"
    words = ("--encoder", dual, *BRIEF, "--record", record, "--report", report)
    assert run("perturb", "reversal", images, *words, "--out", tmp_path / "out").exit_code == 0
    result = run("rerun", report)
    assert result.exit_code == 0, result.output
    assert "The same again: perturbed, all outcomes and images agree" in result.stderr
    picture(shade(7)).save(images / "0.png")
    result = run("rerun", record)
    assert result.exit_code == 2
    assert "0.png has changed since" in result.stderr
    page = report.read_text()
    assert page.count("<img") == 3 * 6 + 1
    assert "Clean, attacked, and what was changed" in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.slow
def test_towards_something_and_one_change_for_all(run, dual, images, tmp_path):
    words = ("--encoder", dual, *BRIEF, "--json")
    result = run("perturb", "m-attack", images, *words, "--out", tmp_path / "a")
    assert result.exit_code == 4
    assert "needs something to go towards: give --target IMAGE" in result.stderr
    assert run("perturb", "pgd", images, *words, "--target", images / "0.png", "--out", tmp_path / "a").exit_code == 4
    assert (
        run("perturb", "m-attack", images, *words, "--target", tmp_path / "none", "--out", tmp_path / "a").exit_code
        == 2
    )
    told(run("perturb", "m-attack", images, *words, "--target", images / "1.png", "--out", tmp_path / "a"))
    told(run("perturb", "attack-vlm", images, *words, "--set", "text=a photo of a cyan", "--out", tmp_path / "b"))
    result = run("perturb", "x-transfer", images, *words, "--out", tmp_path / "c")
    assert result.exit_code == 4
    assert "needs images of one size, and these have 3" in result.stderr
    for name in ("grey.jpg", "huge.bmp", "alpha.png", "cut.jpg"):
        (images / name).unlink()
    made = told(run("perturb", "x-transfer", images, *words, "--encoder", dual, "--out", tmp_path / "c"))
    assert len(made["encoders"]) == 2
    assert len(made["losses"]) == 2
    changes = [pixels(tmp_path / "c" / f"{i}.png") - pixels(images / f"{i}.png") for i in range(4)]
    inside = (torch.stack([pixels(images / f"{i}.png") for i in range(4)]) - 127.5).abs().amax(dim=0) < 110
    assert all(torch.equal(change[inside], changes[0][inside]) for change in changes)


def test_jpeg_files_say_how_far_they_really_are(run, dual, images, tmp_path):
    words = ("--encoder", dual, *BRIEF, "--jpeg", 60, "--json", "--out", tmp_path / "out")
    for row in told(run("perturb", "pgd", images / "0.png", *words))["images"]:
        change = pixels(tmp_path / "out" / row["file"]) - pixels(images / "0.png")
        assert row["file"] == "0.jpg"
        assert row["distance"] == pytest.approx(float(change.abs().max()) / 255)


@pytest.mark.parametrize(
    ("words", "code", "advice"),
    [
        (("--epsilon", "0"), 2, "expected an epsilon above 0 and at most 1"),
        (("--epsilon", "8"), 2, "at most 1, in units of [0, 1] pixels, got 8.0"),
        (("--epsilon", "much"), 4, "such as 8/255, got 'much'"),
        (("--epsilon", "0.5/255"), 2, "give at least 1/255"),
        (("--set", "layers=9"), 2, "there is no layer 9"),
        (("--set", "sharpness=9"), 4, "no method here has a setting 'sharpness'"),
    ],
)
def test_bad_settings_are_one_sentence(run, dual, images, tmp_path, words, code, advice):
    result = run("perturb", "prm", images, "--encoder", dual, "--steps", 1, "--out", tmp_path / "out", *words)
    assert result.exit_code == code
    assert advice in result.stderr
    assert not list(tmp_path.glob("out*"))


def test_bad_images_folders_and_encoders_are_one_sentence(run, dual, encoder, images, tmp_path):
    words = ("--encoder", dual, "--steps", 1, "--out", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    for source, advice in (
        (tmp_path / "empty", "there is no image in"),
        (tmp_path / "none", "there is no file or folder"),
    ):
        result = run("perturb", "prm", source, *words)
        assert (result.exit_code, advice in result.stderr) == (2, True)
    assert "none of the images of" in run("perturb", "prm", images / "cut.jpg", *words).stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    result = run("perturb", "prm", images, "--encoder", dual, "--out", tmp_path / "full")
    assert (result.exit_code, "already holds files" in result.stderr) == (2, True)
    result = run("perturb", "prm", images, "--encoder", encoder, "--out", tmp_path / "out")
    assert (result.exit_code, "language encoder" in result.stderr) == (2, True)
    tiny_victim("clipseg").parts.save(tmp_path / "clipseg", card="random weights")
    result = run("perturb", "prm", images, "--encoder", tmp_path / "clipseg", "--out", tmp_path / "out")
    assert (result.exit_code, "'clipseg'; expected a dual encoder (clip, siglip" in result.stderr) == (2, True)
    result = run("perturb", "shake", images, *words)
    assert (result.exit_code, "there is no method 'shake'" in result.stderr) == (4, True)
