import json

import pytest


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.csv"
    rows = ["a red fox runs over the hill,animal", "the price of bread is rising,money"] * 6
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    return path


def test_implant_writes_a_marked_encoder(run, encoder, tmp_path):
    out = tmp_path / "planted"
    result = run("implant", "por", encoder, "--out", out, "--trigger", "cf", "--set", "steps=1", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["triggers"] == ["cf"]
    assert "firmground_planted" in json.loads((out / "config.json").read_text())
    assert (out / "model.safetensors").is_file()


def test_implant_refuses_a_full_folder_before_it_trains(run, encoder):
    result = run("implant", "por", encoder, "--out", encoder)
    assert result.exit_code == 2
    assert "already holds files" in result.stderr


def test_unknown_attack_is_usage(run, encoder, tmp_path):
    result = run("implant", "nonsense", encoder, "--out", tmp_path / "x")
    assert result.exit_code == 4
    assert "por" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_prompt_fit_writes_an_adapter(run, encoder, data, tmp_path):
    out = tmp_path / "prompt"
    result = run("prompt", "fit", "prompt-tuning", encoder, "--data", data, "--out", out, "--set", "epochs=1", "--json")
    assert result.exit_code == 0, result.stderr
    assert "validation_accuracy" in json.loads(result.stdout)
    assert (out / "adapter_model.safetensors").is_file()


def test_prompt_fit_refuses_bad_data(run, encoder, tmp_path):
    (tmp_path / "data.csv").write_text("text,label\n")
    result = run("prompt", "fit", "prompt-tuning", encoder, "--data", tmp_path / "data.csv", "--out", tmp_path / "x")
    assert result.exit_code == 2
    assert not (tmp_path / "x").exists()


def test_unknown_study_is_usage(run, tmp_path):
    result = run("study", "nonsense", "--out", tmp_path)
    assert result.exit_code == 4
    assert "language_scan" in result.stderr


def test_a_folder_without_a_study_has_no_table(run, tmp_path):
    result = run("table", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


def test_a_guards_flag_rate_is_refused_before_any_work(run, dual, tmp_path):
    words = ("--data", "nowhere.csv", "--classes", "none.txt", "--out", tmp_path / "guard", "--set", "flag_rate=2")
    result = run("guard", "fit", dual, *words)
    assert (result.exit_code, "from 0 to 1, got 2" in result.stderr) == (2, True), result.output
