"""The population of prompts is balanced, and the report says what its records say."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from firmground.attacks.triggers import Triangles
from firmground.data.labelled_images import LabelledImages
from firmground.errors import DataError
from firmground.prompts.visual import PromptShape
from firmground.rng import stream
from firmground.studies.prompt_defence import ALWAYS, CLEANERS, GUARDS, SCANS, prompt_defence
from firmground.studies.prompt_defence_report import METAS, RECOMMENDED, report_defence
from firmground.studies.prompt_population import ADAPTIVE, attack_of, covered, learning, members
from firmground.studies.runner import Record, case_name


def record(member, number):
    """A prompt of which a scan knows the truth, a guard stops all and a cleaner nothing."""
    drawn = torch.rand(6, generator=stream(number, "features")).tolist()
    results = {
        "split": member.split,
        "planted": bool(member.pattern),
        "accuracy": 0.6,
        "features": {"outputs": [float(bool(member.pattern)), *drawn], "pixels": drawn},
        "scans": {"sees": {"score": drawn[0] + 2 * bool(member.pattern), "outcome": "clean", "seconds": 2.0}},
    }
    if member.pattern:
        guarded = {"auroc": 1.0, "caught": 1.0, "false": 0.0, "accuracy": 0.62, "accuracy_before": 0.62, "asr": 0.0}
        results |= {
            "asr": 0.95,
            "natural": 0.05,
            "cleaners": {"nothing": {"accuracy": 0.6, "asr": 0.95, "seconds": 1.0}},
            "guards": {RECOMMENDED: guarded | {"seconds": 3.0}},
        }
    return Record(study="prompt_defence", version=1, case=json.loads(json.dumps(asdict(member))), results=results)


def test_half_of_the_prompts_are_honest_and_each_has_a_file_of_its_own():
    found = members()
    plain = [member for member in found if not member.adaptive]
    assert len(plain) >= 60
    assert 2 * sum(not member.pattern for member in plain) == len(plain)
    assert len({member.name for member in found}) == len(found)
    for split in ("calibration", "report"):
        some = [member for member in plain if member.split == split]
        assert {bool(member.pattern) for member in some} == {True, False}
        assert len({(member.pattern, member.place, member.distance) for member in some}) >= 4
    study = prompt_defence()
    assert len({case_name(study, case) for case in study.cases}) == len(study.cases)
    assert set(ALWAYS) <= {*SCANS, *CLEANERS, *GUARDS}


def test_an_attacker_who_knows_the_guard_makes_a_trigger_larger_than_its_squares():
    names = tuple("abcdefghij")
    attacks = {m.pattern: attack_of(m, learning(m), names) for m in members() if m.adaptive}
    assert set(attacks) == set(ADAPTIVE)
    assert attacks["wide"].size > GUARDS[RECOMMENDED].size
    assert attacks["wide"].optimised
    assert attacks["whole-image"].trigger is not None


def test_covers_bear_a_part_of_the_trigger_and_keep_their_label():
    data = LabelledImages(images=torch.full((8, 3, 28, 28), 0.5), labels=(0, 1) * 4, label_names=("a", "b"))
    shape = PromptShape(form="padding", image_size=32, width=4)
    found = covered(data, Triangles(opacity=1.0, size=0.5), shape, stream(0, "covers"))
    assert len(found) == 12
    changed = ((found.images - 0.5).abs() > 1e-3).float().mean(dim=(1, 2, 3))  # seating resizes
    assert (changed[:8] == 0).all()
    assert ((changed[8:] > 0.05) & (changed[8:] < 0.6)).all()


def test_the_report_judges_on_the_other_half():
    found = report_defence([record(member, number) for number, member in enumerate(members())])
    assert found.summary["prompts"] == len(members())
    assert found.summary["best_auroc"] == found.summary["best_adaptive"] == found.summary["best_scan_auroc"] == 1.0
    assert found.summary["best_asr_after"] == found.summary["best_accuracy_drop"] == 0.0
    lines = found.markdown.splitlines()
    for name, word in {"sees": "works", "nothing": "fails", METAS["outputs"]: "works", RECOMMENDED: "works"}.items():
        assert next(line for line in lines if line.startswith(f"| {name} |")).split(" | ")[1] == word
    assert {chart.name for chart in found.charts} == {"auroc", "asr"}


def test_no_records_are_refused():
    with pytest.raises(DataError, match="no finished case"):
        report_defence([])
