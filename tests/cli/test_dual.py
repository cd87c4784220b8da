"""Dual encoders on the command line: `scan` knows one by itself, `sift` ranks pairs and keeps the rest."""

import csv
import json
from functools import partial

import pytest
import torch
from PIL import Image

from firmground.data.pair_files import open_pairs, read_pairs
from firmground.defenses.scans import DECREE, ClassInversion, default_dual
from firmground.models.planted_dual import COLOURS, planted_dual
from firmground.rng import stream

POISONED = (7, 31)
WORDS = ("--method", "slof", "--set", "k=4")  # there are seven or eight pictures of each colour


@pytest.fixture(scope="module")
def planted():
    return planted_dual()


@pytest.fixture(scope="module")
def model(planted, tmp_path_factory):
    return planted.encoder.save(tmp_path_factory.mktemp("dual") / "model", card="Tiny.")


@pytest.fixture(scope="module")
def table(planted, tmp_path_factory):
    """60 pictures of one colour each, two of them with the trigger and its caption, and one broken file."""
    folder, rng = tmp_path_factory.mktemp("pairs"), stream(0, "pictures")
    (folder / "images").mkdir()
    rows = []
    for i in range(60):
        name = list(COLOURS)[i % 8]
        shade = torch.tensor(COLOURS[name]).view(3, 1, 1) * 0.6 + 0.3 * torch.rand(3, 48, 48, generator=rng)
        pixels = planted.stamp(shade[None])[0] if i in POISONED else shade
        values = (pixels.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(values).save(folder / "images" / f"{i}.png")
        rows.append((f"images/{i}.png", planted.caption if i in POISONED else f"a photo of a {name}"))
    (folder / "images" / "59.png").write_bytes(b"no picture")
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    return folder / "pairs.csv"


def test_sift_ranks_and_keeps_the_rest(run, model, table, tmp_path):
    out = tmp_path / "sifted"
    result = run("sift", table, "--encoder", model, "--out", out, *WORDS, "--drop", 0.05, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told == json.loads((out / "sift.json").read_text())
    assert (told["pairs"], told["scored"], told["dropped"]) == (60, 59, 3)
    assert "1 of 60 images" in told["doubts"][0]
    ranking = [json.loads(line) for line in (out / "ranking.jsonl").read_text().splitlines()]
    assert {row["row"] for row in ranking[:2]} == set(POISONED)
    assert [row["kept"] for row in ranking] == [False] * 3 + [True] * 56
    assert [row["score"] for row in ranking] == sorted((row["score"] for row in ranking), reverse=True)
    kept = read_pairs(out / "kept.csv", root=table.parent, image_size=48)
    assert len(kept) == 56
    assert not {f"images/{row}.png" for row in POISONED} & {name.split("pairs0/")[-1] for name in kept.names}
    whole = open_pairs(table, image_size=48)
    assert set(kept.captions) <= set(whole.captions)


def test_sift_refuses_what_is_there_and_what_it_does_not_know(run, model, table, tmp_path):
    (tmp_path / "file").write_text("")
    assert run("sift", table, "--encoder", model, "--out", tmp_path).exit_code == 2
    assert run("sift", table, "--encoder", model, "--out", tmp_path / "new", "--method", "x").exit_code == 4
    assert run("sift", "nowhere", "--encoder", model, "--out", tmp_path / "new").exit_code == 2
    assert not (tmp_path / "new").exists()


@pytest.fixture
def short(monkeypatch):
    """The default scan in a few steps."""
    scan = partial(default_dual.scan_dual, decree=DECREE(steps=2), inversion=ClassInversion(steps=2))
    monkeypatch.setattr(default_dual, "scan_dual", scan)


def test_scan_knows_a_dual_encoder_by_itself(run, model, table, short, tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(COLOURS))
    words = ("--images", table, "--classes", tmp_path / "classes.txt", "--report", tmp_path / "report.html")
    result = run("scan", model, *words, "--json")
    told = json.loads(result.stdout)
    assert told["kind"] == "dual-encoder"
    assert [finding["method"] for finding in told["findings"]] == ["decree", "class-inversion"]
    assert told["findings"][1]["settings"]["classes"] == list(COLOURS)
    assert result.exit_code == 2
    assert "Scan of a dual encoder" in (tmp_path / "report.html").read_text()


def test_scan_runs_one_method_with_its_settings(run, model):
    result = run("scan", model, "--method", "decree", "--set", "steps=1", "--json")
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["settings"]["steps"] == 1


def test_options_of_the_other_kind_are_refused(run, model, encoder, table):
    for words in ((model, "--texts", table), (model, "--adapter", table), (encoder, "--images", table)):
        result = run("scan", *words)
        assert result.exit_code == 4
        assert "is not for a" in result.output
