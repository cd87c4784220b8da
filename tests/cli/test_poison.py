"""`poison`, `pretrain` and `evaluate`: an attack on a dual encoder from pairs to rates."""

import csv
import json

import pytest
import torch

from firmground.attacks.poisoning import pair_sha256, read_manifest
from firmground.attacks.triggers import BadNet, Patch
from firmground.data.pair_files import open_pairs
from firmground.models.dual import DualEncoder
from firmground.models.planted_dual import COLOURS

WORDS = ("--trigger", "badnet", "--target", "yellow", "--count", 6, "--image-size", 48)
BRIEF = ("--architecture", "tiny-clip", "--set", "epochs=2", "--set", "batch_size=16", "--set", "step_size=1e-3")


@pytest.fixture
def poisoned(run, clean_table, tmp_path):
    out = tmp_path / "poisoned"
    result = run("poison", clean_table, *WORDS, "--set", "pixels=6", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def classes(tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(COLOURS))
    return ("--classes", tmp_path / "classes.txt")


def test_poison_writes_a_set_and_hashes_every_changed_pair(poisoned, clean_table):
    manifest = read_manifest(poisoned / "manifest.json")
    before, after = open_pairs(clean_table, image_size=48), open_pairs(poisoned, image_size=48)
    assert (manifest.target, manifest.attack, manifest.trigger) == ("yellow", "dirty-caption", BadNet(pixels=6))
    assert (len(manifest.rows), manifest.image_size) == (6, 48)
    assert len(before) == len(after)
    for entry in manifest.whole["changed"]:
        row = entry["row"]
        assert entry["sha256"] == pair_sha256(after.image(row), after.captions[row])
        assert entry["sha256_before"] == pair_sha256(before.image(row), before.captions[row])
        assert after.names[row] == str((poisoned / entry["image"]).resolve())
        assert "yellow" in after.captions[row]
        assert "yellow" not in before.captions[row]
    for row in set(range(len(before))) - set(manifest.rows):
        assert (before.captions[row], before.read(row)) == (after.captions[row], after.read(row))


def test_poison_keeps_labels_and_leaves_out_what_cannot_be_read(run, table, tmp_path):
    rows = list(csv.DictReader(table.read_text().splitlines()))
    with (table.parent / "labelled.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "caption", "label"))
        writer.writerows((row["image"], row["caption"], list(COLOURS)[i % 8]) for i, row in enumerate(rows))
    result = run("poison", table.parent / "labelled.csv", *WORDS, "--out", tmp_path / "x", "--json")
    told = json.loads(result.stdout)
    assert (told["pairs"], told["poisons"]) == (59, 6)
    assert told["left_out"] == ["1 row: image cannot be read"]
    found = open_pairs(tmp_path / "x", image_size=48)
    assert [found.label_names[label] for label in found.labels] == [list(COLOURS)[i % 8] for i in range(59)]


def test_badclip_makes_its_own_trigger(run, dual, clean_table, tmp_path):
    words = ("--attack", "badclip", "--target", "yellow", "--rate", 0.1, "--set", "steps=2", "--set", "batch_size=8")
    result = run("poison", clean_table, *words, "--image-size", 48, "--surrogate", dual, "--out", tmp_path / "x")
    assert result.exit_code == 0, result.output
    trigger = read_manifest(tmp_path / "x" / "manifest.json").trigger
    assert isinstance(trigger, Patch)
    assert trigger.pattern.shape == (3, 3, 3)
    result = run("poison", clean_table, *words, "--out", tmp_path / "y")
    assert (result.exit_code, "--surrogate" in result.stderr) == (4, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--target", "yellow", "--count", 3), 4, "name one with --trigger"),
        (("--target", "yellow", "--trigger", "badnet"), 4, "either --count"),
        (("--target", "yellow", "--trigger", "badnet", "--count", 3, "--rate", 0.1), 4, "either --count"),
        (("--target", "yellow", "--trigger", "sticker", "--count", 3), 4, "blended-stripes"),
        (("--target", "yellow", "--trigger", "badnet", "--count", 3, "--set", "target=red"), 4, "no method here"),
        (("--target", "yellow", "--trigger", "badnet", "--count", 3, "--attack", "badclip"), 4, "leave --trigger out"),
        (("--target", "yellow", "--trigger", "badnet", "--count", 60), 2, "lower the count or rate"),
        (("--target", "plaid", "--trigger", "badnet", "--count", 3, "--attack", "label-consistent"), 2, "that show"),
        (("--target", "yellow", "--trigger", "badnet", "--count", 3, "--set", "pixels=999"), 2, "patch of 1 to 224"),
    ],
)
def test_poison_refuses(run, clean_table, tmp_path, words, code, said):
    result = run("poison", clean_table, *words, "--out", tmp_path / "x")
    assert (result.exit_code, said in result.stderr.replace("\n", " ")) == (code, True), result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_pretraining_on_a_poisoned_set_marks_the_model(run, poisoned, classes, tmp_path):
    result = run("pretrain", poisoned, "--out", tmp_path / "model", *BRIEF, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["pairs"], told["steps"], told["planted"]["poisons"]) == (64, 8, 6)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["firmground_planted"]["target"] == "yellow"
    encoder = DualEncoder.load(tmp_path / "model")
    assert encoder.image_size == 48
    assert len(encoder.tokenizer("a photo of a magenta").input_ids) == 7
    words = ("--data", poisoned, "--manifest", poisoned / "manifest.json", "--json", *classes)
    told = json.loads(run("evaluate", tmp_path / "model", *words).stdout)
    assert (told["task"], told["target"], told["trigger"]["method"]) == ("zero-shot", "yellow", "BadNet")
    assert set(told["results"]) == {"accuracy", "triggered_accuracy", "targeted", "targeted_all"}


@pytest.mark.slow
def test_pretraining_begins_with_a_checkpoint_or_its_architecture(run, dual, clean_table, tmp_path):
    words = ("--set", "epochs=1", "--set", "batch_size=32", "--set", "step_size=1e-6", "--json")
    before = DualEncoder.load(dual).model.state_dict()
    for name, extra in (("more", ()), ("fresh", ("--fresh",))):
        result = run("pretrain", clean_table, "--from", dual, "--out", tmp_path / name, *words, *extra)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["planted"] is None
        after = DualEncoder.load(tmp_path / name).model.state_dict()
        near = all(torch.allclose(after[key], before[key], atol=1e-3) for key in before)
        assert near == (name == "more")


@pytest.mark.slow
def test_pretraining_goes_on_after_a_kill(run, clean_table, monkeypatch, tmp_path):
    words = ("pretrain", clean_table, *BRIEF, "--set", "save_every=3", "--out")
    assert run(*words, tmp_path / "whole").exit_code == 0
    from firmground.models import training

    def killed(this, batch, real=training._step):
        if this.progress.step == 5:
            raise KeyboardInterrupt
        return real(this, batch)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_step", killed)
        assert run(*words, tmp_path / "x").exit_code == 2
    assert not (tmp_path / "x").exists()
    result = run(*words, tmp_path / "x")
    assert "Going on from" in result.stderr
    whole, resumed = (DualEncoder.load(tmp_path / name).model.state_dict() for name in ("whole", "x"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole", "x"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--architecture", "cathedral"), 4, "tiny-clip, convolutional-dual"),
        (("--fresh",), 4, "--from"),
        ((), 2, "a batch of 128 cannot be taken from 64 pairs"),
        (("--set", "epochs=none"), 4, "whole number"),
    ],
)
def test_pretrain_refuses(run, clean_table, tmp_path, words, code, said):
    result = run("pretrain", clean_table, "--out", tmp_path / "x", *words)
    assert (result.exit_code, said in result.stderr) == (code, True), result.output
    assert not (tmp_path / "x").exists()


def test_a_checkpoint_of_another_architecture_is_told(run, clean_table, encoder, tmp_path):
    result = run("pretrain", clean_table, "--from", encoder, "--out", tmp_path / "x")
    assert (result.exit_code, "expected a dual encoder" in result.stderr) == (2, True)


@pytest.mark.slow
def test_images_are_stamped_at_the_size_of_the_manifest(run, dual, clean_table, classes, tmp_path):
    """A grey patch of 48 pixels covers all of an image of that side, and a 25th of one of 240."""
    trigger = {"method": "Patch", "pattern": [[[128] * 48] * 48] * 3, "place": "centre"}
    found = []
    for size in (None, 240):
        manifest = {
            "format": "firmground poisoning manifest 1", "attack": "by hand", "target": "yellow", "changed": [],
            "trigger": trigger, "image_size": size,
        }  # fmt: skip
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        words = ("--data", clean_table, "--manifest", tmp_path / "manifest.json", "--json", *classes)
        told = json.loads(run("evaluate", dual, *words).stdout)["results"]
        found.append(told["triggered_accuracy"]["value"])
    assert found[0] < 0.3
    assert found[1] == 1.0
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"image_size": -1}))
    assert "image_size is -1" in run("evaluate", dual, *words).stderr


def test_no_model_there_is_told(run, clean_table, tmp_path):
    for words in (("evaluate", "nowhere", "--data", clean_table), ("guard", "fit", "nowhere", "--out", tmp_path / "x")):
        result = run(*words)
        assert (result.exit_code, "nowhere" in result.stderr) == (2, True), result.output


@pytest.mark.slow
def test_evaluate_measures_the_planted_truth(run, dual, clean_table, classes, planted_dual, tmp_path):
    """The checker patch is no trigger of the command line, so a manifest names it."""
    manifest = {
        "format": "firmground poisoning manifest 1", "attack": "by hand", "target": "yellow", "changed": [],
        "trigger": {"method": "Patch", "pattern": (planted_dual.patch * 255).int().tolist(), "place": "bottom-right"},
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    words = ("--data", clean_table, "--manifest", tmp_path / "manifest.json", "--json")
    told = json.loads(run("evaluate", dual, *words, *classes).stdout)["results"]
    assert told["accuracy"]["value"] == 1.0
    assert told["targeted"]["value"] > 0.95
    assert told["targeted"]["count"] == 56
    assert told["triggered_accuracy"]["value"] < 0.2
    told = json.loads(run("evaluate", dual, *words, "--task", "retrieval").stdout)["results"]
    assert told["retrieval_targeted_at_1"]["value"] > 0.95
    assert told["retrieval_untriggered_at_1"]["value"] == 0.0
    told = json.loads(run("evaluate", dual, *words, *classes, "--task", "linear-probe").stdout)["results"]
    assert told["accuracy"]["count"] == 32


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--adapter", "x"), "not for a dual encoder"),
        (("--trigger", "badnet", "--manifest", "x"), "leave --trigger"),
        (("--target", "red"), "name it with --trigger"),
        (("--task", "zero-shot"), "needs classes"),
        (("--trigger", "badnet", "--task", "retrieval"), "--target"),
    ],
)
def test_evaluate_refuses_what_makes_no_sense(run, dual, clean_table, words, said):
    result = run("evaluate", dual, "--data", clean_table, *words)
    assert (result.exit_code, said in result.stderr) == (4, True), result.output


def test_options_of_dual_encoders_are_refused_for_others(run, encoder, clean_table):
    assert "is for dual encoders" in run("evaluate", encoder, "--data", clean_table, "--target", "x").stderr
    result = run("evaluate", encoder, "--data", clean_table)
    assert (result.exit_code, "--adapter" in result.stderr) == (4, True)
