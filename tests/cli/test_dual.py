"""Dual encoders on the command line: `scan` knows one by itself, `sift` ranks pairs and keeps the rest."""

import base64
import io
import json
import re

import pytest
import torch
from PIL import Image

from firmground.data.decoding import decode
from firmground.data.pair_files import open_pairs, read_pairs
from firmground.models.planted_dual import COLOURS

from .conftest import POISONED

pytestmark = pytest.mark.slow

WORDS = ("--method", "slof", "--set", "k=4")  # there are seven or eight pictures of each colour


def test_sift_ranks_and_keeps_the_rest(run, dual, table, tmp_path):
    out = tmp_path / "sifted"
    result = run("sift", table, "--encoder", dual, "--out", out, *WORDS, "--drop", 0.05, "--json")
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
    assert not {f"images/{row}.png" for row in POISONED} & {f"images/{name.rpartition('/')[2]}" for name in kept.names}
    whole = open_pairs(table, image_size=48)
    assert set(kept.captions) <= set(whole.captions)


def test_sift_refuses_what_is_there_and_what_it_does_not_know(run, dual, table, tmp_path):
    (tmp_path / "file").write_text("")
    assert run("sift", table, "--encoder", dual, "--out", tmp_path).exit_code == 2
    assert run("sift", table, "--encoder", dual, "--out", tmp_path / "new", "--method", "x").exit_code == 4
    assert run("sift", "nowhere", "--encoder", dual, "--out", tmp_path / "new").exit_code == 2
    assert not (tmp_path / "new").exists()


def test_scan_knows_a_dual_encoder_by_itself(run, dual, table, short, tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(COLOURS))
    words = ("--images", table, "--classes", tmp_path / "classes.txt", "--report", tmp_path / "report.html")
    result = run("scan", dual, *words, "--json")
    told = json.loads(result.stdout)
    assert told["kind"] == "dual-encoder"
    assert [finding["method"] for finding in told["findings"]] == ["decree", "class-inversion", "gathering"]
    assert told["findings"][1]["settings"]["classes"] == list(COLOURS)
    assert result.exit_code == 2
    page = (tmp_path / "report.html").read_text()
    assert "Scan of a dual encoder" in page
    assert "<dt>Pattern</dt>" in page
    assert "Predefined vector" not in page


def test_scan_shows_the_pattern_as_a_picture(run, dual, tmp_path):
    words = ("--method", "decree", "--set", "sparsities=0.3", "--set", "steps=80", "--set", "batch_size=8")
    result = run("scan", dual, *words, "--report", tmp_path / "report.html")
    assert result.exit_code == 1, result.output
    (found,) = re.findall(r'<img src="data:image/png;base64,([^"]+)"', (tmp_path / "report.html").read_text())
    with Image.open(io.BytesIO(base64.b64decode(found))) as picture:
        assert (picture.mode, picture.size) == ("RGBA", (48, 48))


def test_sift_shows_pairs_and_what_their_captions_share(run, dual, table, tmp_path):
    words = ("--out", tmp_path / "x", *WORDS, "--drop", 0.05, "--report", tmp_path / "report.html")
    assert run("sift", table, "--encoder", dual, *words).exit_code == 0
    page = (tmp_path / "report.html").read_text()
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', page)
    assert len(pictures) == 48
    assert {f"row {row})" in pictures[0][1] + pictures[1][1] for row in POISONED} == {True}
    first = decode(base64.b64decode(pictures[0][0]), None)
    row = next(row for row in POISONED if f"row {row})" in pictures[0][1])
    assert torch.equal(first, (read_pairs(table, image_size=48).image(row) * 255).round().to(torch.uint8))
    assert "<bdi>yellow</bdi>" in page


def test_what_was_kept_can_be_trained_on(run, dual, table, tmp_path):
    run("sift", table, "--encoder", dual, "--out", tmp_path / "sifted", *WORDS, "--drop", 0.05)
    words = ("--architecture", "tiny-clip", "--set", "epochs=1", "--set", "batch_size=16", "--json")
    kept = tmp_path / "sifted" / "kept.csv"
    result = run("pretrain", kept, "--root", table.parent, "--out", tmp_path / "model", *words)
    assert json.loads(result.stdout)["pairs"] == 56
    result = run("evaluate", dual, "--data", kept, "--root", table.parent / "images")
    assert (result.exit_code, "no usable pair; 56 rows: image is missing" in result.stderr) == (2, True)


def test_scan_runs_one_method_with_its_settings(run, dual):
    result = run("scan", dual, "--method", "decree", "--set", "steps=1", "--json")
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["settings"]["steps"] == 1


def test_options_of_the_other_kind_are_refused(run, dual, encoder, table):
    for words in ((dual, "--texts", table), (dual, "--adapter", table), (encoder, "--images", table)):
        result = run("scan", *words)
        assert result.exit_code == 4
        assert "is not for a" in result.output
