"""Bad pairs on the command line: skipped and counted where that is right, else one sentence and the right exit code."""

import csv
import io
import json

import numpy
import pytest
from PIL import Image

from firmground.data.pair_files import open_pairs
from firmground.models.planted_dual import COLOURS

from .conftest import pictures, write_table

BRIEF = ("--set", "epochs=1", "--set", "batch_size=16", "--json")
COUNTED = [
    "1 row: image is missing",
    "1 row: caption is empty",
    "1 row: caption is cut to 2000 characters",
    "1 row: caption is not UTF-8",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """32 good pairs, six odd ones that can be used, and eight rows with something wrong."""
    folder = tmp_path_factory.mktemp("odd")
    rows = pictures(folder, 32)
    (folder / "classes.txt").write_text("\n".join(COLOURS))
    red = Image.new("RGB", (20, 12), (200, 20, 30))
    (folder / "odd").mkdir()
    odd = {
        "cmyk.jpg": red.convert("CMYK"),
        "palette.png": red.quantize(16),
        "sixteen.png": Image.fromarray(numpy.full((9, 9), 65535, numpy.uint16)),
        "one.png": Image.new("RGB", (1, 1), (200, 20, 30)),
        "thin.png": Image.new("RGB", (1, 900), (200, 20, 30)),
        "moving.gif": red,
    }
    for name, image in odd.items():
        image.save(folder / "odd" / name)
        rows.append((f"odd/{name}", f"a photo of a {'white' if name == 'sixteen.png' else 'red'}"))
    data = (folder / "images" / "0.png").read_bytes()
    for name, content in {"half.png": data[: len(data) // 2], "empty.png": b"", "text.png": b"hello"}.items():
        (folder / "odd" / name).write_bytes(content)
        rows.append((f"odd/{name}", "a photo of a red"))
    rows += [("odd/nowhere.png", "a red"), ("odd/one.png", " "), ("odd/one.png", "a photo of a red " + 900 * "very ")]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("image", "caption"), *rows])
    (folder / "pairs.csv").write_bytes(text.getvalue().encode() + b"odd/one.png,a red caf\xe9\n")
    return folder


def left_out(told):
    """Without the name of the first broken file, which threads may find in any order."""
    *counts, broken = told["left_out"]
    return counts, broken.split(" and were")[0]


@pytest.mark.slow
def test_clean_skips_and_counts(run, dual, folder, tmp_path):
    words = ("--classes", folder / "classes.txt", "--out", tmp_path / "x", "--held-out", 0.5, "--no-scan", *BRIEF)
    words += tuple(f"--set={s}" for s in ("rounds=1", "restarts=1", "search_steps=2", "cycles=2", "text_epochs=1"))
    result = run("clean", dual, "--data", folder / "pairs.csv", *words)
    assert result.exit_code == 0, result.output
    assert left_out(json.loads(result.stdout)) == (COUNTED, "3 of 42 images could not be read")


@pytest.mark.slow
def test_pretrain_skips_and_counts(run, folder, tmp_path):
    words = ("--architecture", "tiny-clip", "--out", tmp_path / "x", *BRIEF)
    result = run("pretrain", folder / "pairs.csv", *words)
    assert result.exit_code == 0, result.output
    counts, broken = left_out(json.loads(result.stdout))
    assert counts == COUNTED
    assert broken.endswith("of 42 images could not be read")


def test_evaluate_skips_and_counts(run, dual, folder):
    result = run("evaluate", dual, "--data", folder / "pairs.csv", "--classes", folder / "classes.txt", "--json")
    told = json.loads(result.stdout)
    assert told["results"]["accuracy"] == pytest.approx(told["results"]["accuracy"] | {"value": 1.0, "count": 39})
    assert left_out(told) == (COUNTED, "3 of 42 images could not be read")
    assert "BytesIO" not in result.stdout


def test_poison_skips_and_counts(run, folder, tmp_path):
    words = ("--trigger", "sig", "--target", "blue", "--rate", 0.1, "--image-size", 48, "--out", tmp_path / "x")
    told = json.loads(run("poison", folder / "pairs.csv", *words, "--json").stdout)
    assert told["left_out"] == [*COUNTED, "3 rows: image cannot be read"]
    assert (told["pairs"], told["poisons"]) == (39, 4)
    assert not open_pairs(tmp_path / "x", image_size=48).sound().counted["image cannot be read"]


def tables(folder):
    """Sets that cannot be used at all, with what is to be said of them."""
    rows = [(f"images/{i}.png", f"a photo of a {name}") for i, name in enumerate(COLOURS)]
    (folder / "utf16.csv").write_text("image,caption\nimages/0.png,a red\n", encoding="utf-16")
    (folder / "columns.csv").write_text("picture,caption\nimages/0.png,a red\n")
    (folder / "nothing.csv").write_text("")
    return {
        write_table(folder / "outside.csv", [*rows, ("../../etc/passwd", "a red")]): "outside of the data folder",
        write_table(folder / "same.csv", [("images/0.png", "a photo of a red")] * 24): "captions",
        write_table(folder / "broken.csv", [("odd/text.png", f"a photo of a {i}") for i in range(24)]): "can be read",
        folder / "utf16.csv": "is not UTF-8",
        folder / "columns.csv": "no column 'image'",
        folder / "nothing.csv": "is empty",
        folder / "absent.csv": "there is no file",
    }


@pytest.mark.slow
def test_what_cannot_be_used_is_refused_in_one_sentence(run, dual, folder, tmp_path):
    for path, said in tables(folder).items():
        for words in (
            ("clean", dual, "--data", path, "--out", tmp_path / "x", "--no-scan", *BRIEF),
            ("pretrain", path, "--out", tmp_path / "x", "--architecture", "tiny-clip", *BRIEF),
            ("evaluate", dual, "--data", path, "--json"),
        ):
            result = run(*words)
            assert (result.exit_code, said in result.stderr) == (2, True), (words[0], result.output)
            assert result.stderr.count("\n") == 1
            assert list(tmp_path.iterdir()) == []


def test_a_caption_may_hold_any_unicode_line_break(tmp_path):
    rows = pictures(tmp_path, 2)
    write_table(tmp_path / "pairs.csv", [(rows[0][0], "a red\u2028fox"), (rows[1][0], "a green\x85hill")])
    assert open_pairs(tmp_path / "pairs.csv").captions == ("a red fox", "a green hill")


def test_help_teaches_with_an_example(run):
    for verb in ("scan", "sift", "clean", "poison", "pretrain", "evaluate"):
        assert f"firmground {verb} " in run(verb, "--help").output.split("Example")[1]
