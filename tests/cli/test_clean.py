"""`firmground clean`: a loadable, safer model with its card, what it cost, a new scan; repeatable and resumable."""

import json

import pytest
import torch

from firmground.models.dual import DualEncoder
from firmground.models.planted_dual import COLOURS
from firmground.reports.cleaning import CleanReport, unlike
from firmground.reports.record import Record
from firmground.types import Outcome

from .conftest import colour, pictures, write_table

BRIEF = ("--set", "epochs=2", "--set", "batch_size=8", "--set", "step_size=1e-4")
SEARCH = [
    f"--set={s}" for s in ("rounds=2", "restarts=1", "search_steps=2", "cycles=2", "text_epochs=1")
]  # disarm's own


@pytest.fixture
def classes(tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(COLOURS))
    return ("--classes", tmp_path / "classes.txt", "--held-out", 0.25)


def weights(folder):
    return DualEncoder.load(folder).model.state_dict()


@pytest.mark.slow
def test_clean_writes_a_model_its_card_and_what_it_cost(run, dual, clean_table, classes, short, tmp_path):
    out = tmp_path / "cleaned"
    result = run("clean", dual, "--data", clean_table, "--out", out, *BRIEF, *SEARCH, *classes, "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 2, result.output  # two steps of a scan decide nothing
    assert (told["task"], told["pairs"], told["held_out"], told["steps"]) == ("zero-shot", 48, 16, 18)
    assert told["before"]["accuracy"]["value"] == 1.0
    assert told["after"]["accuracy"]["count"] == 16
    methods = [finding["method"] for finding in told["scan"]["findings"]]
    assert methods == ["decree", "class-inversion", "gathering"]
    assert told["scan"]["target"] == {
        "source": str(out), "revision": None, "adapter": None, "base": None, "weights_sha256": told["weights_sha256"],
    }  # fmt: skip
    card = (out / "README.md").read_text()
    assert "`disarm` (epochs=2" in card
    assert "| Zero-shot accuracy | 100.0 %" in card
    assert "`class-inversion`: inconclusive" in card
    moved = any(not torch.equal(weights(out)[name], value) for name, value in weights(dual).items())
    assert moved
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.txt", "cleaned"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cleanclip", "contrastive", "supervised", "par", "rvpt", "restore"])
def test_every_method_cleans_without_a_scan(run, dual, clean_table, classes, tmp_path, method):
    words = ("--method", method, "--no-scan", "--json", *BRIEF, *classes)
    result = run("clean", dual, "--data", clean_table, "--out", tmp_path / "x", *words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["method"] == method
    assert json.loads(result.stdout)["scan"] is None


@pytest.mark.slow
def test_without_classes_retrieval_is_measured(run, dual, table, tmp_path):
    words = ("--no-scan", "--json", "--held-out", 0.5, *BRIEF, *SEARCH)
    told = json.loads(run("clean", dual, "--data", table, "--out", tmp_path / "x", *words).stdout)
    assert told["task"] == "retrieval"
    assert set(told["after"]) == {f"{way}_at_{n}" for way in ("image_to_text", "text_to_image") for n in (1, 5, 10)}
    assert "1 of 60 images could not be read" in told["left_out"][0]


@pytest.mark.slow
def test_a_planted_encoders_mark_stays_on_it(run, planted_dual, clean_table, classes, tmp_path):
    folder = planted_dual.encoder.copy().save(tmp_path / "marked", card="Tiny.", planted={"attack": "by hand"})
    run("clean", folder, "--data", clean_table, "--out", tmp_path / "x", *BRIEF, *SEARCH, *classes, "--no-scan")
    assert json.loads((tmp_path / "x" / "config.json").read_text())["firmground_planted"] == {"attack": "by hand"}
    assert "carries a planted backdoor" in (tmp_path / "x" / "README.md").read_text()


@pytest.mark.slow
def test_rerun_comes_to_the_same_weights(run, dual, clean_table, classes, short, tmp_path):
    record, report = tmp_path / "record.json", tmp_path / "report.html"
    words = ("--set", "epochs=2", "--set", "batch_size=16", *SEARCH, *classes, "--device", "cpu")
    files = ("--record", record, "--report", report)
    run("clean", dual, "--data", clean_table, "--out", tmp_path / "x", *words, *files)
    assert "What it cost in accuracy" in report.read_text()
    assert Record.read(report) == Record.read(record)
    result = run("rerun", report, "--json")
    assert json.loads(result.stdout)["agrees"] is True, result.output
    assert result.exit_code == Record.read(record).exit_code
    before = Record.read(record)
    told = CleanReport.model_validate(before.results)
    scan = told.scan.model_copy(update={"outcome": Outcome.BACKDOORED})
    other = told.model_copy(update={"weights_sha256": "0", "scan": scan})
    assert len(unlike(told, other, exact=True)) == 2
    assert len(unlike(told, other, exact=False)) == 1
    assert unlike(told, told.model_copy(update={"scan": None}), exact=True) == ("a scan was made only before",)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(run, dual, clean_table, classes, monkeypatch, tmp_path):
    words = (*BRIEF, "--method", "contrastive", "--set", "save_every=3", *classes, "--no-scan")
    assert run("clean", dual, "--data", clean_table, "--out", tmp_path / "whole", *words).exit_code == 0
    from firmground.models import training

    def killed(run, batch, real=training._step):
        if run.progress.step == 7:
            raise KeyboardInterrupt
        return real(run, batch)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_step", killed)
        result = run("clean", dual, "--data", clean_table, "--out", tmp_path / "x", *words)
    assert result.exit_code == 2
    assert not (tmp_path / "x").exists()
    assert [path.name for path in (tmp_path / "x.unfinished").glob("step-*")] == ["step-00000006"]
    other = run("clean", dual, "--data", clean_table, "--out", tmp_path / "x", *words, "--seed", 1)
    assert "holds another unfinished run: its seed is 0, this one's 1" in other.stderr
    result = run("clean", dual, "--data", clean_table, "--out", tmp_path / "x", *words)
    assert "Going on from" in result.stderr
    assert all(torch.equal(weights(tmp_path / "x")[name], v) for name, v in weights(tmp_path / "whole").items())
    assert not (tmp_path / "x.unfinished").exists()


def test_bad_requests_are_refused_before_any_work(run, dual, encoder, clean_table, tmp_path):
    cases = (
        (("clean", dual, "--data", clean_table, "--out", dual), 2, "already holds files"),
        (("clean", dual, "--data", "nowhere.csv", "--out", tmp_path / "x"), 2, "nowhere.csv"),
        (("clean", encoder, "--data", clean_table, "--out", tmp_path / "x"), 2, "expected a dual encoder"),
        (("clean", dual, "--data", clean_table, "--out", tmp_path / "x", "--method", "soap"), 4, "cleanclip"),
        (("clean", dual, "--data", clean_table, "--out", tmp_path / "x", "--set", "soap=1"), 4, "step_size"),
        (("clean", dual, "--data", clean_table, "--out", tmp_path / "x"), 2, "choose a smaller batch_size"),
    )
    for words, code, said in cases:
        result = run(*words)
        assert (result.exit_code, said in result.stderr) == (code, True), result.output
        assert not (tmp_path / "x").exists()


def test_a_set_of_one_class_and_a_label_that_is_missing_are_told(run, dual, tmp_path):
    rows = pictures(tmp_path, 16)
    one = [row for row in rows if colour(rows.index(row)) == "red"]
    write_table(tmp_path / "one.csv", one * 8)
    result = run("clean", dual, "--data", tmp_path / "one.csv", "--out", tmp_path / "x", *BRIEF, "--no-scan")
    assert result.exit_code == 2
    assert "two" in result.stderr
    (tmp_path / "labels.csv").write_text("image,caption,label\nimages/0.png,a red,red\nimages/1.png,a green,\n")
    result = run("clean", dual, "--data", tmp_path / "labels.csv", "--out", tmp_path / "x", *BRIEF)
    assert "row 2 of" in result.stderr


@pytest.mark.slow
def test_prompts_come_with_the_encoder_wherever_it_goes(run, dual, clean_table, classes, short, tmp_path):
    out, named = tmp_path / "x", classes[:2]
    words = ("--method", "rvpt", "--set", "epochs=1", "--set", "batch_size=8", "--set", "tokens=2", *classes)
    run("clean", dual, "--data", clean_table, "--out", out, *words, "--no-scan", "--record", tmp_path / "record.json")
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "encoder", "prompts.safetensors"]
    assert "vision_model 0 %" in (out / "README.md").read_text()
    told = json.loads(run("evaluate", out, "--data", clean_table, *named, "--json").stdout)
    assert told["results"]["accuracy"]["count"] == 64
    assert json.loads(run("scan", out, "--json").stdout)["kind"] == "dual-encoder"
    again = run("rerun", tmp_path / "record.json")
    assert again.exit_code == 0, again.output
