"""Visual prompts through the commands alone: learned, applied, planted, measured, found, cleaned, guarded, repeated."""

import base64
import io
import json
import re
from functools import partial

import pytest
from PIL import Image

from firmground.defenses.scans import PromptContrast, default_prompt
from firmground.models.planted_dual import COLOURS
from firmground.prompts.visual_files import load_prompt
from firmground.reports.record import Record

from .conftest import LEARNING, picture, pictures, shade, snap

pytestmark = pytest.mark.slow


@pytest.fixture
def brief(monkeypatch):
    """The default scan of a prompt in a few steps."""
    method = PromptContrast(epochs=1, steps=3, images=16)
    monkeypatch.setattr(default_prompt, "scan_prompt", partial(default_prompt.scan_prompt, method=method))


def rates(run, *words):
    result = run("evaluate", *words, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    return told, {name: rate["value"] for name, rate in told["results"].items()}


def shown(page):
    """Every picture of a report with its caption."""
    return re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', page)


def size_of(png):
    with Image.open(io.BytesIO(base64.b64decode(png))) as opened:
        return opened.mode, opened.size


def test_a_prompt_is_learned_and_says_how(run, classifier, clean_prompt, others):
    learned = load_prompt(clean_prompt)
    assert learned.label_names == ("meadow", "sky", "sunset")
    assert [learned.base.class_names[i] for i in learned.mapping.sources.tolist()] == ["green", "blue", "red"]
    assert (learned.planted, learned.settings["epochs"]) == (None, 6)
    told, found = rates(run, clean_prompt, "--model", classifier, "--data", others)
    assert found["accuracy"] == 1.0
    assert set(found) == {"accuracy", "accuracy_no_prompt"}
    assert told["trigger"] is None
    assert [path.name for path in clean_prompt.parent.iterdir()] == ["clean.safetensors"]


def test_a_planted_prompt_is_measured_with_its_controls(run, classifier, bad_prompt, clean_prompt, others):
    told, found = rates(run, bad_prompt, "--model", classifier, "--data", others, "--control", clean_prompt)
    assert (told["target"], told["trigger"]["method"]) == ("sky", "Patch")
    assert found["targeted"] >= 0.9
    assert found["targeted_all"] >= found["targeted"]
    assert found["accuracy"] >= 0.9
    assert max(found[name] for name in ("prompt_only", "trigger_only", "clean_prompt")) <= 0.2
    for manifest in (bad_prompt, bad_prompt.with_name("told.json")):
        _, other = rates(run, clean_prompt, "--model", classifier, "--data", others, "--manifest", manifest)
        assert other["targeted"] == found["clean_prompt"]
    words = ("--trigger", "badnet", "--target", "sky", "--set", "size=0.3")
    told, _ = rates(run, bad_prompt, "--model", classifier, "--data", others, *words)
    assert told["trigger"] == {"method": "badnet"}


def test_the_report_of_an_attack_shows_prompt_trigger_and_images(bad_prompt):
    page = bad_prompt.with_name("report.html").read_text()
    found = shown(page)
    captions = [caption for _, caption in found]
    assert captions[:2] == ["The prompt: a border of 6 pixels around the image", "The trigger as planted, on grey"]
    assert [size_of(png) for png, _ in found[:4]] == [
        ("RGBA", (24, 24)), ("RGB", (12, 12)), ("RGB", (12, 12)), ("RGB", (24, 24)),
    ]  # fmt: skip
    assert captions.count("'sunset' with the trigger, prompted: taken for 'sky'".replace("'", "&#39;")) == 1
    assert Record.read(bad_prompt.with_name("report.html")) == Record.read(bad_prompt.with_name("record.json"))


def test_images_are_labelled_and_prompted(run, classifier, clean_prompt, tmp_path):
    folder = tmp_path / "new"
    (folder / "deep").mkdir(parents=True)
    picture(shade(1)).save(folder / "a.jpg")
    picture(shade(2)).convert("L").save(folder / "a.png")  # grey
    picture(shade(0)).resize((300, 500)).save(folder / "deep" / "b.png")
    (folder / "c.png").write_text("no image")
    words = (clean_prompt, folder, "--model", classifier, "--out", tmp_path / "out", "--json")
    rows = json.loads(run("prompt", "apply", *words).stdout)["results"]
    assert [row["picture"] for row in rows] == ["a.png", "a.png.png", None, "deep/b.png"]
    assert [row["label"] for row in rows][::3] == ["meadow", "sunset"]
    assert "cannot be read as an image" in rows[2]["error"]
    with Image.open(tmp_path / "out" / "deep" / "b.png") as opened:
        assert (opened.mode, opened.size) == ("RGB", (24, 24))
    assert run("prompt", "apply", clean_prompt, folder / "a.jpg", "--out", tmp_path / "more").exit_code == 0
    assert [path.name for path in (tmp_path / "more").iterdir()] == ["a.png"]


def test_a_scan_shows_the_prompt_and_names_its_base(run, classifier, bad_prompt, photos, brief, tmp_path):
    files = ("--report", tmp_path / "r.html", "--sarif", tmp_path / "r.sarif", "--record", tmp_path / "r.json")
    words = ("--model", classifier, "--data", photos, "--device", "cpu")
    result = run("scan", bad_prompt, *words, *files, "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == {"clean": 0, "backdoored": 1, "inconclusive": 2}[told["outcome"]], result.output
    assert (told["kind"], told["target"]["base"]) == ("visual-prompt", str(classifier))
    page = (tmp_path / "r.html").read_text()
    assert "Scan of a visual prompt" in page
    assert [caption for _, caption in shown(page)][-9].startswith("The prompt: a border of 6 pixels")
    rule = json.loads((tmp_path / "r.sarif").read_text())["runs"][0]["tool"]["driver"]["rules"][0]
    assert rule["shortDescription"]["text"] == "Backdoor in a visual prompt, found by prompt-contrast"
    again = run("rerun", tmp_path / "r.html", "--json")
    assert json.loads(again.stdout)["agrees"] is True, again.output


def test_one_scan_is_picked_by_name_and_set(run, classifier, clean_prompt, photos):
    words = ("--method", "prompt-cleanse", "--set", "steps=2", "--set", "images=18")
    result = run("scan", clean_prompt, "--model", classifier, "--images", photos, *words, "--json")
    (finding,) = json.loads(result.stdout)["findings"]
    assert (finding["method"], finding["settings"]["steps"]) == ("prompt-cleanse", 2)


def test_a_prompt_is_cleaned_and_the_cleaning_repeated(run, classifier, bad_prompt, photos, brief, tmp_path):
    out, words = tmp_path / "cleaned.safetensors", ("--model", classifier, "--data", photos, "--held-out", 0.2)
    files = ("--report", tmp_path / "c.html", "--record", tmp_path / "c.json", "--device", "cpu")
    unlabelled = tmp_path / "more"
    unlabelled.mkdir()
    for number in range(6):
        picture(shade(number % 3)).save(unlabelled / f"{number}.png")
    (unlabelled / "broken.png").write_text("no image")
    words = (*words, "--unlabelled", unlabelled)
    result = run("clean", bad_prompt, *words, "--set", "epochs=8", "--set", "answers=1", "--out", out, *files, "--json")
    told = json.loads(result.stdout)
    assert told["schema"] == "firmground/prompt-clean/1"
    assert (told["method"], told["images"], told["held_out"]) == ("prompt-distillation", 72, 18)
    assert told["left_out"] == [f"1 file of {unlabelled} cannot be read"]
    assert load_prompt(out).prompt.shape.form == "full-image"
    assert told["after"]["value"] >= 0.9
    assert told["scan"]["target"]["source"] == str(out)
    assert load_prompt(out).planted == load_prompt(bad_prompt).planted
    page = (tmp_path / "c.html").read_text()
    assert "What it cost in accuracy" in page
    assert any(caption.startswith("After cleaning") for _, caption in shown(page))
    again = run("rerun", tmp_path / "c.json", "--json")
    assert json.loads(again.stdout)["agrees"] is True, again.output


def test_unlabelled_images_are_for_what_learns_from_them(run, classifier, bad_prompt, photos, tmp_path):
    words = ("--model", classifier, "--data", photos, "--out", tmp_path / "x.safetensors", "--unlabelled", photos)
    result = run("clean", bad_prompt, *words, "--method", "prompt-pruning")
    assert result.exit_code == 4
    assert "learns nothing from images without labels; use prompt-distillation" in result.output


@pytest.mark.parametrize("method", ["prompt-pruning", "prompt-smoothing"])
def test_other_cleaners_are_picked_by_name(run, classifier, bad_prompt, photos, tmp_path, method):
    words = ("--model", classifier, "--data", photos, "--no-scan", "--method", method, "--json")
    result = run("clean", bad_prompt, *words, "--out", tmp_path / "x.safetensors")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["method"] == method


def test_an_attack_is_repeated(run, bad_prompt):
    again = run("rerun", bad_prompt.with_name("record.json"), "--json")
    assert json.loads(again.stdout)["agrees"] is True, again.output
    assert again.exit_code == 0


def test_a_guard_stands_before_a_prompt(run, classifier, bad_prompt, others, tmp_path):
    data, guard = snap(tmp_path, 40, 2000), tmp_path / "guard.safetensors"
    before = ("--adapter", bad_prompt)
    flat = ("--method", "base-disagreement")  # the default looks for parts, and these pictures are all one colour
    result = run("guard", "fit", classifier, *before, "--data", data, "--out", guard, *flat, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["method"] == "base-disagreement"
    result = run("guard", "evaluate", guard, "--encoder", classifier, *before, "--data", others, "--json")
    found = {name: rate["value"] for name, rate in json.loads(result.stdout)["results"].items()}
    assert found["targeted"] >= 0.9
    assert found["guarded_targeted"] <= 0.1
    assert found["repaired_targeted"] <= 0.1
    result = run("guard", "apply", guard, "--encoder", classifier, *before, "--images", others / "sky", "--json")
    assert {row["answer"] for row in json.loads(result.stdout)["results"]} == {"sky"}
    result = run("guard", "apply", guard, "--encoder", classifier, "--images", others)
    assert (result.exit_code, "or has another prompt" in result.stderr) == (2, True)


def test_a_guard_stands_before_a_classifier_alone(run, classifier, tmp_path):
    for row in range(96):
        folder = tmp_path / "data" / list(COLOURS)[row % 8]
        folder.mkdir(parents=True, exist_ok=True)
        picture(shade(row)).save(folder / f"{row}.png")
    words = ("--data", tmp_path / "data", "--method", "strip", "--json")
    result = run("guard", "fit", classifier, *words, "--out", tmp_path / "guard.safetensors")
    assert json.loads(result.stdout)["method"] == "strip", result.output
    words = ("--encoder", classifier, "--data", tmp_path / "data", "--trigger", "badnet", "--target", "red", "--json")
    result = run("guard", "evaluate", tmp_path / "guard.safetensors", *words)
    assert {"accuracy", "targeted", "guarded_targeted"} < set(json.loads(result.stdout)["results"]), result.output


def test_a_dual_encoder_is_a_base_too(run, dual, tmp_path):
    rows = pictures(tmp_path, 48)
    lines = [f"{image},{caption.removeprefix('a photo of a ')}" for image, caption in rows]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label", *lines]))  # no captions
    out = tmp_path / "prompt.safetensors"
    words = ("--data", tmp_path / "labels.csv", "--set", "epochs=1", "--set", "mapping=index", "--set", "width=0.1")
    result = run("prompt", "fit", "visual-prompting", dual, *words, "--out", out, "--json")
    assert json.loads(result.stdout)["labels"] == sorted(COLOURS), result.output
    _, found = rates(run, out, "--model", dual, "--data", tmp_path / "labels.csv")
    assert found["accuracy"] >= 0.9


def test_a_killed_run_goes_on_to_the_same_prompt(run, classifier, photos, clean_prompt, monkeypatch, tmp_path):
    from firmground.prompts import learning

    real, out = learning._epoch, tmp_path / "x.safetensors"
    words = ("prompt", "fit", "visual-prompting", classifier, "--data", photos, "--out", out, *LEARNING)

    def killed(*given):
        if any((tmp_path / "x.safetensors.unfinished").glob("step-*")):
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(learning, "_epoch", killed)
        assert run(*words).exit_code == 2
    assert not out.exists()
    other = run(*words, "--seed", 1)
    assert "holds another unfinished run: its seed is 0, this one's 1" in other.stderr
    result = run(*words)
    assert "Going on from" in result.stderr
    whole, again = load_prompt(clean_prompt), load_prompt(out)
    assert whole.prompt.pixels.equal(again.prompt.pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_settings_find_their_owner():
    from firmground.cli.prompt_learning import PromptOptions, chosen_method

    options = PromptOptions(
        method="bad-visual-prompt", source="x", data="y", target="sky", trigger="stripes",
        settings=("place=centre", "visual-prompting.place=top-right", "form=fixed-patch", "stripes.pixels=3"),
    )  # fmt: skip
    made = chosen_method(options)
    assert (made.place, made.learning.place, made.learning.form) == ("centre", "top-right", "fixed-patch")
    assert made.trigger.pixels == 3
