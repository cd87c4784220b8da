from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from firmground.attacks.evasion import EVASIONS
from firmground.errors import DataError
from firmground.studies import find_study
from firmground.studies.runner import Record, Study, run
from firmground.studies.tables import tabulate
from firmground.studies.transfer import Setting, exam, run_case
from firmground.studies.transfer_ablations import (
    EQUAL,
    LARGER,
    LONG,
    LONG_LAST,
    METRICS,
    OURS,
    TUNED_ON,
    untuned_ratio,
    untuned_table,
)
from firmground.studies.transfer_cases import FEWER, PARTS, SETTINGS, STEPS, VARIANTS, Case, cases, method_of
from firmground.studies.transfer_convergence import MOMENTUM, lead, long_ranks, reading
from firmground.studies.transfer_report import CONTROL, rank, report_transfer
from firmground.studies.victims.building import Recipe
from firmground.studies.victims.catalogue import VICTIMS, Plan
from firmground.studies.victims.fitting import Fit
from firmground.types import Interval, ignore

if TYPE_CHECKING:
    from pathlib import Path

JURY = (
    Plan(task="segmentation", head="untrained", tower="resnet-1"),
    Plan(task="vqa", head="program", tower="resnet-1"),
    Plan(task="vqa", head="film", tower="resnet-1", tuned=True),
)


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "count": 9}


def record(case: Case, strength: float = 0.0) -> Record:
    """A run in which every victim loses `strength` of its score."""
    if not case.attack:
        own = {plan.name: {"score": interval(0.8), "group": plan.group("resnet-1"), "task": plan.task} for plan in JURY}
        return Record(study="transfer", version=1, case=case.__dict__, results={"victims": own})
    drops = {
        plan.name: {"clean": 0.8, "attacked": 0.8 * (1 - strength), "drop": interval(strength), "task": plan.task,
                    "group": plan.group("resnet-1")}
        for plan in JURY
    }  # fmt: skip
    means = {task: {"all": interval(strength), "white box": interval(strength)} for task in METRICS}
    return Record(study="transfer", version=1, case=case.__dict__, results={"victims": drops, "means": means})


def test_every_case_has_its_attack() -> None:
    grid = cases()
    assert len(set(grid)) == len(grid)
    assert {case.epsilon for case in grid if case.attack == "prm"} == {4, 8, 16}
    for case in grid:
        if case.attack not in ("", CONTROL):
            method = method_of(case, STEPS)
            assert method.name == SETTINGS.get(case.attack, (case.attack,))[0]
            assert method.steps == (VARIANTS | FEWER | PARTS).get(case.variant, {}).get("steps", STEPS)
            assert method.epsilon == pytest.approx(case.epsilon / 255)
            assert all(getattr(method, name) == value for name, value in VARIANTS.get(case.variant, {}).items())
    assert set(OURS) <= {kind.name for kind in EVASIONS}
    with pytest.raises(DataError, match="there is no attack"):
        method_of(Case(attack="persuasion", epsilon=8), STEPS)
    assert find_study("transfer").cases == grid


@pytest.mark.slow
def test_a_small_run_is_resumed_and_reported(tmp_path: Path) -> None:
    setting = Setting(
        folder=str(tmp_path / "population"), victims=JURY, scenes=8, steps=2,
        recipe=Recipe(count=32, fit=Fit(epochs=1), reading=1),
    )  # fmt: skip
    small = (Case(), Case(attack="prm", epsilon=16), Case(attack=CONTROL, epsilon=16))
    study = Study(name="transfer", cases=small, run_case=partial(run_case, setting=setting), report=report_transfer)
    assert run(study, tmp_path / "records", limit=2, watch=ignore).done == 2
    ended = run(study, tmp_path / "records", watch=ignore)
    assert (ended.done, ended.stood, ended.failed) == (1, 2, 0)
    made = tabulate(tmp_path / "records", into=tmp_path / "out", study=study)
    assert made.report.summary["victims"] == len(JURY)
    assert made.report.summary["prm_rank_segmentation"] == 1
    assert "white box" in made.report.markdown
    again = run_case(small[1], ignore, setting=setting)
    other = run_case(small[1], ignore, setting=setting)
    assert again["victims"] == other["victims"]
    assert len(exam(8)) == 8


def test_ranks_leave_out_the_control_and_our_own() -> None:
    def drops(**values: float) -> dict[str, dict[int, Interval]]:
        return {name: {8: Interval(value=value, low=0, high=1, count=9)} for name, value in values.items()}

    found = drops(prm=0.5, pgd=0.6, nrd=0.4) | {OURS[0]: drops(x=0.9)["x"], CONTROL: drops(x=0.8)["x"]}
    assert rank(found, "prm") == 2
    assert rank(found, "pgd") == 1
    found["mi"] = {4: Interval(value=0.9, low=0, high=1, count=9)}
    assert rank(found, "prm") == 2  # not run at the same epsilon
    assert rank(found, "dr") is None


def test_victims_by_which_ours_was_tuned_are_also_left_out() -> None:
    assert set(TUNED_ON) <= {plan.name for plan in VICTIMS}
    runs = []
    for attack, strong, weak in ((OURS[0], 0.9, 0.3), ("prm", 0.2, 0.2)):
        one = record(Case(attack=attack, epsilon=8), weak)
        own = one.results["victims"]
        own[TUNED_ON[0]] = {"task": "segmentation", "drop": interval(strong), "group": "white box"}
        runs.append(one)
    assert untuned_ratio(runs) == pytest.approx(1.5)
    assert f"{OURS[0]} | 8/255 | 30.0 | - | - | 30.0 | 30.0" in "".join(untuned_table(runs))
    assert untuned_ratio(runs[:1]) is None
    for one in runs:
        one.results["victims"] = {name: own for name, own in one.results["victims"].items() if name not in TUNED_ON}
    assert untuned_table(runs) == []


def test_the_summary_compares_ours_with_prm() -> None:
    found: list[Any] = [record(Case())]
    for level in (4, 8):
        for attack, strength in (("prm", 0.4), ("pgd", 0.3), (OURS[0], 0.5), (CONTROL, 0.01)):
            found.append(record(Case(attack=attack, epsilon=level), strength))
    found.append(record(Case(attack="prm", epsilon=8, variant="last layer"), 0.2))
    found.append(record(Case(attack="prm", epsilon=8, surrogate="resnet-2"), 0.05))
    found.append(record(Case(attack="di", epsilon=8, variant="signs"), 0.35))
    found.append(record(Case(attack="prm", epsilon=8, variant=LONG), 0.45))
    for variant, strength in (("signs", 0.42), (LARGER, 0.43), (LONG_LAST, 0.41)):
        found.append(record(Case(attack="prm", epsilon=8, variant=variant), strength))
    found.append(record(Case(attack=OURS[0], epsilon=8, variant=EQUAL), 0.48))
    report = report_transfer(found)
    assert "at 8/255 is 48.0 % (50.0 with 40; `prm`: 40.0)" in report.markdown
    assert "too few of that size (40.0; 45.0 with 250 steps)" in report.markdown
    assert "come to 43.0, signed ones of 1/255 to 42.0" in report.markdown
    assert "alone gives 20.0, and with 250 steps 41.0" in report.markdown
    assert "With the 250 steps" not in report.markdown  # nothing to compare PRM with
    assert "di | 8/255" not in report.markdown.split("## Ablations of PRM")[1].split("##")[0]
    assert "another tower" in report.markdown
    assert report.summary["ours_over_prm"] == pytest.approx(1.25)
    assert [report.summary[f"prm_rank_{task}"] for task in METRICS] == [1, 1, 1, 1]
    assert "last layer | 8/255 | 20.0" in report.markdown
    assert len(report.charts) == len(METRICS)
    assert all(plan.name in report.markdown for plan in JURY)
    assert len(VICTIMS) >= 24
    with pytest.raises(DataError, match="run the study further"):
        report_transfer(found[1:])


def pairs(case: Case, strength: float, wobble: float) -> Record:
    """A run whose bootstraps all go the same way, so that two of them differ by what they are, however they wobble."""
    one = record(case, strength)
    drop = {"clean": 0.8, "attacked": 0.8 * (1 - strength), "drop": interval(strength), "group": "white box"}
    one.results["victims"] = {f"{task}-crops-resnet-1": {**drop, "task": task} for task in METRICS}
    one.results["replicates"] = {task: [strength + wobble * (i - 50) / 50 for i in range(101)] for task in METRICS}
    return one


def test_leads_are_of_pairs() -> None:
    """Two attacks whose own intervals overlap by far are told apart, since their images are the same ones."""
    prm, pgd = (pairs(Case(attack=name, epsilon=8, variant=LONG), s, 0.3) for name, s in (("prm", 0.5), ("pgd", 0.4)))
    ahead = lead(prm, pgd, ("segmentation", "vqa"))
    assert ahead is not None
    assert (ahead.value, ahead.low, ahead.high) == pytest.approx((0.1, 0.1, 0.1))
    assert lead(prm, record(Case(attack="nrd", epsilon=8, variant=LONG), 0.4), ("vqa",)) is None


def test_attacks_with_as_many_steps_as_prms_paper_takes() -> None:
    short = [record(Case(attack=name, epsilon=8), strength) for name, strength in (("prm", 0.2), ("pgd", 0.3))]
    found: list[Any] = [record(Case()), *short]
    for attack, strength, wobble in (("prm", 0.5, 0.1), ("pgd", 0.4, 0.1), ("nrd", 0.6, 0.1), ("di", 0.49, 0.2)):
        found.append(pairs(Case(attack=attack, epsilon=8, variant=LONG), strength, wobble))
    text = report_transfer(found).markdown
    assert "PRM leads `pgd`, is level with `di`, trails `nrd`." in text
    assert "| pgd | 40 | 30.0 | 30.0 | 30.0 | 30.0 | 30.0 | - | - |" in text
    assert "One optimizer" not in text
    assert long_ranks(found[1:]) == {f"prm_rank_{task}_250_steps": 2 for task in METRICS}
    assert Case(attack="nrd", epsilon=8, variant=MOMENTUM) in cases()


def test_what_a_victim_reads() -> None:
    kinds = {plan.name: reading(plan.name) for plan in VICTIMS}
    assert kinds["segmentation-untrained-resnet-1"] == kinds["detection-crops-deep-3"] == "crops"
    assert kinds["detection-regions-resnet-1"] == kinds["segmentation-masks-resnet-1"] == "whole image"
    assert {kind for name, kind in kinds.items() if name.startswith(("vqa", "captioning"))} == {""}
