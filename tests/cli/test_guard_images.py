"""A guard in front of a dual encoder, through the commands alone."""

import json

import pytest

from firmground.models.planted_dual import COLOURS

from .conftest import picture, shade

pytestmark = pytest.mark.slow


@pytest.fixture
def guard(run, dual, clean_table, tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(COLOURS))
    words = ("--data", clean_table, "--classes", tmp_path / "classes.txt", "--json")
    result = run("guard", "fit", dual, *words, "--out", tmp_path / "guard.safetensors")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["false_flags"]["count"] == 32
    return tmp_path / "guard.safetensors"


def test_a_guard_of_images_takes_the_attack_away(run, guard, clean_table, planted_dual, tmp_path):
    manifest = {
        "format": "firmground poisoning manifest 1", "attack": "by hand", "target": "yellow", "changed": [],
        "trigger": {"method": "Patch", "pattern": (planted_dual.patch * 255).int().tolist(), "place": "bottom-right"},
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    words = ("--data", clean_table, "--classes", tmp_path / "classes.txt", "--manifest", tmp_path / "manifest.json")
    told = json.loads(run("guard", "evaluate", guard, *words, "--json").stdout)
    rates = {name: rate["value"] for name, rate in told["results"].items()}
    assert rates["targeted"] > 0.95
    assert rates["guarded_targeted"] < 0.05
    assert rates["accuracy"] == 1.0
    assert rates["guarded_accuracy"] == 1.0 - rates["false_flags"]
    assert told["auroc"] > 0.99


def test_images_are_classified_behind_it(run, guard, planted_dual, tmp_path):
    (tmp_path / "new").mkdir()
    picture(shade(2)).save(tmp_path / "new" / "a.png")
    picture(planted_dual.stamp(shade(2)[None])[0]).save(tmp_path / "new" / "b.png")
    (tmp_path / "new" / "c.png").write_text("no image")
    result = run("guard", "apply", guard, "--images", tmp_path / "new", "--json")
    found = json.loads(result.stdout)["results"]
    assert [(row["answer"], row["flagged"]) for row in found] == [("blue", False), ("yellow", True), (None, False)]
    assert "cannot be read as an image" in found[2]["error"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("apply", "--texts", "x"), "needs --images"),
        (("evaluate", "--data", "x.csv", "--adapter", "y"), "no --adapter"),
        (("evaluate", "--data", "x.csv", "--target", "y"), "--trigger"),
    ],
)
def test_what_is_for_texts_is_refused(run, guard, words, said):
    result = run("guard", words[0], guard, *words[1:])
    assert (result.exit_code, said in result.stderr) == (4, True), result.output


def test_a_file_that_is_no_guard_is_told_as_such(run, dual, table, tmp_path):
    for path, said in ((tmp_path / "none", "there is no guard at"), (table, "is damaged or no guard")):
        for words in (("apply", path, "--images", tmp_path), ("evaluate", path, "--data", table)):
            result = run("guard", *words)
            assert (result.exit_code, said in result.stderr) == (2, True), result.output


def test_what_is_for_the_other_kind_is_refused(run, dual, encoder, clean_table, tmp_path):
    for words, said in (
        ((dual, "--adapter", "x", "--data", clean_table), "is a dual encoder"),
        ((dual,), "needs --data"),
        ((dual, "--data", clean_table), "needs classes"),
        ((encoder,), "needs --adapter"),
    ):
        result = run("guard", "fit", *words, "--out", tmp_path / "x")
        assert (result.exit_code, said in result.stderr) == (4, True), result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["mahalanobis", "displacement", "patch-instability"])
def test_a_guard_stands_before_an_encoder_with_prompts(run, dual, clean_table, tmp_path, method):
    (tmp_path / "classes.txt").write_text("\n".join(COLOURS))
    words = ("--data", clean_table, "--classes", tmp_path / "classes.txt", "--json")
    brief = ("--method", "rvpt", "--set", "epochs=1", "--set", "batch_size=8", "--set", "tokens=2", "--no-scan")
    folder, guard = tmp_path / "prompted", tmp_path / "guard.safetensors"
    assert run("clean", dual, *words, *brief, "--out", folder).exit_code == 0
    fit = run("guard", "fit", folder, *words, "--method", method, "--out", guard)
    assert fit.exit_code == 0, fit.output
    (tmp_path / "new").mkdir()
    picture(shade(2)).save(tmp_path / "new" / "a.png")
    told = run("guard", "apply", guard, "--images", tmp_path / "new", "--json")
    assert json.loads(told.stdout)["results"][0]["score"] is not None, told.output
    measured = json.loads(run("guard", "evaluate", guard, *words).stdout)
    assert measured["results"]["accuracy"]["count"] == 64
    bare = run("guard", "apply", guard, "--encoder", folder / "encoder", "--images", tmp_path / "new")
    assert (bare.exit_code, f"fit a guard on {folder / 'encoder'}" in " ".join(bare.stderr.split())) == (2, True)
