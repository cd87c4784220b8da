"""From a planted encoder to a guarded prompt, through the commands alone."""

import json

import pytest

from firmground.cli.guarding_texts import evidence_of
from firmground.models.loading import weights_sha256
from firmground.reports.findings import Target
from firmground.reports.scan import scan_report
from firmground.types import Evidence, Outcome, Readout, RecoveredTrigger, RecoveredVector, Severity, Verdict

pytestmark = pytest.mark.slow


def planted_verdict(planted):
    triggers = tuple(
        RecoveredTrigger(
            text=text, token_ids=planted.encoder.pieces(text), score=3.0, readout=Readout.CLS, vector=number
        )
        for number, text in enumerate(planted.triggers)
    )
    vectors = tuple(RecoveredVector(readout=Readout.CLS, values=tuple(row)) for row in planted.vectors.tolist())
    return Verdict(
        method="truth",
        outcome=Outcome.BACKDOORED,
        score=3.0,
        threshold=1.0,
        severity=Severity.HIGH,
        evidence=Evidence(triggers=triggers, vectors=vectors),
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A planted encoder, its scan, and data, all on disk."""
    from firmground.data.sentences import neutral_sentences
    from firmground.models.tiny import planted_bert
    from firmground.rng import stream

    folder = tmp_path_factory.mktemp("home")
    planted = planted_bert()
    planted.encoder.model.save_pretrained(folder / "encoder")
    planted.encoder.tokenizer.save_pretrained(folder / "encoder")
    target = Target(source="encoder", weights_sha256=weights_sha256(folder / "encoder"))
    scan = scan_report([planted_verdict(planted)], target=target, seconds=1.0)
    (folder / "scan.json").write_text(scan.to_json())
    texts = neutral_sentences(24, rng=stream(0, "texts"))
    rows = [f"{text.replace(',', '')},{'a' if number % 2 else 'b'}" for number, text in enumerate(texts)]
    (folder / "data.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (folder / "texts.txt").write_text(f"{texts[0]}\ncf {texts[1]}\n")
    return folder


def test_from_prompt_to_guard(run, home):
    encoder, adapter, data, guard = home / "encoder", home / "prompt", home / "data.csv", home / "guard.safetensors"

    def done(*words):
        result = run(*words, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    done("prompt", "fit", "prompt-tuning", encoder, "--data", data, "--out", adapter, "--set", "epochs=1")
    bare = done("evaluate", encoder, "--adapter", adapter, "--data", data, "--trigger", "cf")["results"]
    assert {"accuracy", "macro_f1", "untargeted"} <= bare.keys()
    assert (
        run("guard", "fit", encoder, "--adapter", adapter, "--scan", home / "scan.json", "--out", guard).exit_code == 0
    )
    clean, triggered = done("guard", "apply", guard, "--adapter", adapter, "--texts", home / "texts.txt")["results"]
    assert (clean["flagged"], clean["removed"]) == (False, [])
    assert (triggered["flagged"], triggered["removed"]) == (True, ["cf"])
    both = done("guard", "evaluate", guard, "--adapter", adapter, "--data", data, "--trigger", "cf")
    assert both["with"]["untargeted"]["value"] == 0
    assert both["without"]["accuracy"] == bare["accuracy"]


def test_a_scan_of_other_weights_is_refused(run, home, encoder):
    words = ("--adapter", home / "prompt", "--scan", home / "scan.json", "--out", home / "other")
    result = run("guard", "fit", encoder, *words)
    assert result.exit_code == 2
    assert "other weights" in result.stderr


def test_evidence_of_several_findings_is_one():
    from firmground.models.tiny import planted_bert

    verdict = planted_verdict(planted_bert())
    merged = evidence_of(scan_report([verdict, verdict], target=Target(source="x"), seconds=0.0))
    assert [trigger.text for trigger in merged.triggers] == [t.text for t in verdict.evidence.triggers]
    assert all(trigger.vector < len(merged.vectors) for trigger in merged.triggers)
