from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from firmground.defenses.cleaning import COVERINGS
from firmground.errors import DataError
from firmground.studies import clip_cost, clip_guard, clip_scan, clip_sift, dual_population
from firmground.studies.clip_cleaning import (
    CLEANERS,
    EARLY,
    FIRST,
    MANY,
    OTHERS,
    WITHOUT,
    Case,
    cases,
    cleaner_of,
    clip_cleaning,
)
from firmground.studies.clip_cleaning_report import KEPT, SHIPPED, best_cleaner, chosen, report_cleaning
from firmground.studies.clip_hard_cases import (
    CLEANED_CONTROL,
    CONTAMINATED,
    CONTROL,
    UNIMODAL,
    HardCase,
    clean_child,
    contaminated,
)
from firmground.studies.dual_data import CLASSES, LONGEST, SIDE, TARGETS, scene_pairs
from firmground.studies.dual_population import BASES, NOISE, OPTIMISED, TRIGGERS, Child, trigger_of
from firmground.studies.runner import Record, case_name
from firmground.types import Suspicion


def record(study: str, case: Any, results: dict[str, Any]) -> Record:
    return Record(study=study, version=1, case=json.loads(json.dumps(case.__dict__)), results=results, seconds=1.0)


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value, "count": 100}


def cleaned(case: Case, accuracy: float, asr: float | None, validation: float, lost: float | None = None) -> Record:
    """What is cleaned was measured on the larger test set where `lost` says by how much accuracy is lower there."""
    results = {"world": "scenes", "accuracy": share(accuracy), "validation": share(validation), "victim_seconds": 5.0}
    attacked = {} if asr is None else {"asr": share(asr), "asr_all": share(asr)}
    if case.cleaner:
        results["clean_seconds"] = 2.0
    else:
        lost = 0.001 * bool(case.trigger)
    if lost is not None:
        results["large"] = attacked | {"accuracy": share(accuracy - lost), "validation": share(validation - lost)}
    results |= attacked
    return record("clip_cleaning", case, results)


def cleaning_records() -> list[Record]:
    """CleanCLIP is safe at the step size that a user takes, and safer at one that costs too much accuracy."""
    found = [cleaned(Case(base="b"), 0.95, None, 0.95)]
    for trigger in NOISE:
        found.append(cleaned(Case(base="b", trigger=trigger), 0.94, 0.99, 0.94))
        curve = [(0.93, 0.5, 0.94), (0.93, 0.08, 0.93), (0.7, 0.0, 0.7)]
        for size, (accuracy, asr, validation) in zip((1e-4, 1e-3, 1e-2), curve, strict=True):
            case = Case(base="b", trigger=trigger, cleaner="cleanclip", step_size=size)
            found.append(cleaned(case, accuracy, asr, validation))
            found.append(cleaned(Case(**{**case.__dict__, "cleaner": "restore"}), accuracy, asr / 2, validation))
    return found


def test_every_cell_has_its_cleaner() -> None:
    grid = cases()
    assert len({case_name(clip_cleaning(), case) for case in grid}) == len(grid)
    cells = {
        (case.trigger, case.cleaner)
        for case in grid
        if case.base == "scenes-resnet-1" and case.cleaner and case.trigger
    }
    assert cells == {(trigger, cleaner) for trigger in (*TRIGGERS, OPTIMISED) for cleaner in (*CLEANERS, SHIPPED)}
    for case in grid:
        if case.cleaner:
            method = cleaner_of(case)
            assert method.name == case.cleaner.partition(",")[0]
            assert max(method.step_size, method.first_step_size) == case.step_size
    with pytest.raises(DataError, match="there is no cleaner"):
        cleaner_of(Case(base="b", cleaner="soap"))


def test_every_victim_is_cleaned_with_many_pairs_first() -> None:
    victims = [case for case in cases() if case.trigger and not case.cleaner and isinstance(case, Case)]
    assert [(case.base, case.trigger) for case in victims[: len(EARLY)]] == list(EARLY)
    many = [case for case in cases() if getattr(case, "pairs", 0) == MANY and case.cleaner != SHIPPED]
    assert [(case.cleaner, case.step_size) for case in many[:: len(victims)]] == list(FIRST)
    assert len(many) == len(FIRST) * len(victims)
    assert set(OTHERS) | set(NOISE) == {*TRIGGERS, OPTIMISED}


def test_restore_is_not_shown_the_family_of_the_trigger() -> None:
    assert set(WITHOUT) == {*TRIGGERS, OPTIMISED}
    assert {family for families in WITHOUT.values() for family in families} <= set(COVERINGS)
    for cleaner, held in (("restore", ("glyphs",)), ("disarm", ("glyphs",)), (SHIPPED, ())):
        assert cleaner_of(Case(base="b", trigger="text", cleaner=cleaner, step_size=1e-3)).without == held


def test_the_step_size_is_chosen_without_a_look_at_asr() -> None:
    points = [{"step_size": 10.0**n, "validation/value": 0.9 - 0.01 * n, "suspect_validation": 0.9} for n in range(4)]
    assert chosen(points)["step_size"] == 10.0 ** round(100 * KEPT)
    ruined = [row | {"suspect_validation": 2.0} for row in points]
    assert chosen(ruined)["step_size"] == 1.0


def test_cleaning_is_reported_at_the_chosen_step_size() -> None:
    report = report_cleaning(cleaning_records())
    assert report.summary["undefended_asr_min_noise"] == 0.99
    assert report.summary["undefended_accuracy_drop_max"] == pytest.approx(0.011), "of the large test set"
    assert report.summary["cleanclip_asr_max_noise"] == 0.08
    assert report.summary["cleanclip_accuracy_drop_max"] == pytest.approx(0.01)
    assert report.summary["best_asr_max"] == 0.04
    assert "with most pairs: restore" in report.markdown
    assert [chart.name for chart in report.charts] == ["curve-b-badnet", "curve-b-blended", "asr"]
    with pytest.raises(DataError, match="no finished victim"):
        report_cleaning(cleaning_records()[:1])


def test_the_summary_tells_many_clean_pairs_from_few() -> None:
    few = cleaning_records()
    case = Case(base="b", trigger="badnet", cleaner="cleanclip", step_size=1e-3, pairs=MANY)
    both = report_cleaning([*few, cleaned(case, 0.935, 0.03, 0.94, lost=0.002)])
    assert both.summary["cleanclip_asr_max_noise"] == 0.03
    assert both.summary["cleanclip_accuracy_drop_max"] == pytest.approx(0.939 - 0.933), "of the large test set"
    assert both.summary["cleanclip_accuracy_drop_max_few"] == pytest.approx(0.94 - 0.93)
    assert both.summary["cleanclip_asr_max_noise_few"] == report_cleaning(few).summary["cleanclip_asr_max_noise"]
    assert both.summary["clean_pairs"] == MANY
    assert both.charts[0].curves is not None
    assert f"cleanclip, {MANY} pairs" in both.charts[0].curves


def test_hard_cases_and_controls_have_tables_of_their_own() -> None:
    plain = report_cleaning(cleaning_records())
    again = {"rebound": {"asr": share(0.31), "accuracy": share(0.9)}}
    control = HardCase(base="b", trigger="badnet", hardship=CONTROL)
    alike = HardCase(base="b", trigger="", hardship=CLEANED_CONTROL, cleaner="disarm", step_size=1e-3)
    hard = HardCase(base="b", trigger="badnet", hardship=CONTAMINATED, cleaner="disarm", step_size=1e-3)
    harder = HardCase(base="b", trigger="badnet", hardship=UNIMODAL, cleaner="cleanclip", step_size=1e-2)
    disarmed = cleaned(Case(base="b", trigger="badnet", cleaner="disarm", step_size=1e-3), 0.93, 0.02, 0.93)
    found = [
        *cleaning_records(),
        record("clip_cleaning", control, {"asr": share(0.043), "accuracy": share(0.95)} | again),
        record("clip_cleaning", alike, {"accuracy": share(0.95), "under badnet": share(0.026)}),
        record("clip_cleaning", hard, {"asr": share(0.57), "accuracy": share(0.9)}),
        record("clip_cleaning", harder, {"asr": share(0.66), "accuracy": share(0.91)}),
        replace(disarmed, results=disarmed.results | again),
    ]
    report = report_cleaning(found)
    assert report.summary["points"] == plain.summary["points"] + 1
    assert "| b | badnet | 1 | 93.9 | 1.1 | 99.0 | 99.0 | 4.3 | 2.6 | 5 |" in report.markdown
    assert "| b | badnet | disarm | 1 | 0.0010 | 90.0 | 57.0 |" in report.markdown
    assert "| b | badnet | cleanclip | 1 | 0.0100 | 91.0 | 66.0 |" in report.markdown
    assert "| b | badnet | disarm | 1 | 2.0 | 31.0 | 90.0 |" in report.markdown
    assert "| b | badnet | (none: a clean child) | 1 | 4.3 | 31.0 | 90.0 |" in report.markdown
    assert not any(hardship in plain.markdown for hardship in (CONTAMINATED, UNIMODAL))


def test_a_cleaning_set_may_hold_a_few_poisons() -> None:
    pairs = scene_pairs(60, 9)
    found = contaminated(pairs, TRIGGERS["badnet"], "scenes", count=5, seed=0)
    before, after = (next(iter(data.batches(60))).images for data in (pairs, found))
    changed = (before != after).flatten(1).any(dim=1).nonzero()[:, 0].tolist()
    assert len(changed) == 5
    assert all(TARGETS["scenes"] in found.captions[row] for row in changed)
    assert clean_child("scenes-resnet-1") == Child(base="scenes-resnet-1")
    assert clean_child("fashion-resnet-1").short


def test_the_best_cleaner_was_run_on_as_many_victims_as_any() -> None:
    rows = [{"cleaner": "a", "asr/value": 0.2}, {"cleaner": "a", "asr/value": 0.1}, {"cleaner": "b", "asr/value": 0.0}]
    assert best_cleaner(rows) == "a"
    assert best_cleaner([]) == ""


def test_sifters_are_judged_by_the_true_rows() -> None:
    rows = tuple(range(200))
    perfect = Suspicion(method="m", rows=rows, scores=tuple(float(row in (3, 8)) for row in rows))
    assert clip_sift.judged(perfect, (3, 8)) == {"auroc": 1.0, "precision": 1.0, "recall": 1.0, "seconds": 0.0}
    assert clip_sift.judged(perfect, (4, 9))["auroc"] == pytest.approx(0.5 * 196 / 198)


def test_the_sifting_report_is_about_one_sifter_on_all_sets() -> None:
    def judged(auroc: float) -> dict[str, float]:
        return {"auroc": auroc, "precision": 0.8, "recall": 1.0, "seconds": 1.0}

    def found(case: clip_sift.Case) -> Record:
        few = case.rate < dual_population.RATE
        worth = (0.97 if few else 0.96) if case.trigger in NOISE else 0.92
        return record("clip_sift", case, {"sifters": {"dao": judged(0.3), "displacement": judged(worth)}})

    grid = clip_sift.cases()
    assert {case.rate for case in grid} == set(clip_sift.RATES)
    assert len(set(grid)) == len(grid) == 2 * len(clip_sift.RATES) * len(TRIGGERS) + 2
    report = clip_sift.report_sift([found(case) for case in grid])
    assert report.summary["auroc_min_noise"] == 0.97, "few poisons only"
    assert report.summary["auroc_min"] == 0.92
    assert report.summary["sets"] == len(grid)
    assert report.summary["sets_unseen"] == 2 * len(clip_sift.RATES) * (len(TRIGGERS) - 3)
    assert "displacement: worst AUROC" in report.markdown
    with pytest.raises(DataError, match="no finished case"):
        clip_sift.report_sift([])


def test_the_guard_report_gives_mean_and_worst_victim_and_leaves_controls_out() -> None:
    def found(case: clip_guard.Case, auroc: float) -> Record:
        told = {"caught": share(0.9), "false": share(0.02), "shifted": {"darker": 0.1}}
        guards = {"mahalanobis": told | {"auroc": auroc}, "displacement": told | {"auroc": 0.999}}
        return record("clip_guard", case, {"asr": 0.99, "world": "scenes", "guards": guards})

    grid = clip_guard.cases()
    assert len(set(grid)) == len(grid)
    assert {(case.base, case.trigger, case.implanted) for case in grid if case.role == "design"} == set(
        clip_guard.DESIGN
    )
    of = {"design": 1.0, "held": 0.9, "fresh": 0.7, "control": 0.1, "knowing": 0.2, "stronger": 0.3}
    report = clip_guard.report_guard([found(case, of[case.role]) for case in grid])
    count = {role: sum(case.role == role for case in grid) for role in of}
    victims = count["design"] + count["held"] + count["fresh"]
    assert report.summary["victims"] == victims
    assert report.summary["auroc"] == pytest.approx(sum(of[role] * count[role] for role in list(of)[:3]) / victims)
    assert report.summary["auroc_min"] == report.summary["auroc_fresh"] == pytest.approx(0.7)
    assert report.summary["auroc_knowing"] == pytest.approx(0.2)
    assert report.summary["auroc_stronger"] == pytest.approx(0.3)
    assert report.summary["asr_knowing"] == pytest.approx(0.99)
    assert "mahalanobis, 2 knowing victims: mean AUROC 0.200" in report.markdown
    assert report.summary["victims_unseen"] == count["held"] + count["fresh"]
    assert f"| mahalanobis | scenes | darker | {len(grid)} | 0.100" in report.markdown
    weak = replace(found(grid[-20], 0.1), results=found(grid[-20], 0.1).results | {"asr": 0.3})
    assert clip_guard.report_guard([found(grid[0], 1.0), weak]).summary["auroc"] == 1.0, "no backdoor to find"
    with pytest.raises(DataError, match="no finished case"):
        clip_guard.report_guard([])


def test_scans_are_judged_on_other_bases_than_those_that_set_thresholds() -> None:
    grid = clip_scan.cases()
    split = {base.name: base.split for base in BASES}
    assert len(set(grid)) == len(grid) >= 25
    assert all(case.split == split[case.base] for case in grid)
    assert not [case for case in grid if case.trigger and case.split == "calibration"]
    found = [
        record(
            "clip_scan",
            case,
            {
                "scores": {"gathering": 2.0 if case.trigger else 0.1 + 0.01 * case.seed, "decree": 0.5},
                "asr_share": (0.3 if case.trigger == "wanet" else 0.9) if case.trigger else None,
                "scan_seconds": 1.0,
            },
        )
        for case in grid
    ]
    report = clip_scan.report_scan(found)
    assert report.summary["auroc"] == 1.0
    assert report.summary["auroc_decree"] == 0.5
    assert report.summary["tpr_at_5_fpr"] == 1.0
    assert report.summary["models"] == len(grid) - 1, "no backdoor took in one"
    with pytest.raises(DataError, match="clean calibration encoders"):
        clip_scan.report_scan([r for r in found if r.case["split"] == "report"])


def test_scenes_for_training_have_objects_of_some_size_and_short_captions() -> None:
    pairs = scene_pairs(200, 7)
    assert len(pairs) == len(pairs.labels or ()) == 200
    assert pairs.images.shape == (200, 3, SIDE, SIDE)
    assert pairs.images.dtype == torch.uint8
    assert pairs.label_names == CLASSES
    assert TARGETS["scenes"] in CLASSES
    assert max(len(caption.split()) for caption in pairs.captions) <= LONGEST
    again = scene_pairs(100, 7)
    assert pairs.captions[:50] == again.captions[:50]


def test_an_optimised_trigger_comes_back_from_its_manifest() -> None:
    facts = {
        "trigger": OPTIMISED,
        "planted": {"trigger": {"pattern": [[[255]], [[0]], [[51]]], "place": "centre", "opacity": 1.0}},
    }
    trigger = trigger_of(facts)
    assert trigger is not None
    stamped = trigger.stamp(torch.zeros(1, 3, 3, 3), rng=torch.Generator())
    assert stamped[0, :, 1, 1].tolist() == pytest.approx([1.0, 0.0, 0.2])
    assert trigger_of({"trigger": ""}) is None
    assert Child(base="b", trigger="sig", rate=0.01).name == "b-sig-0.01-0"
    assert Child(base="b", seed=2, short=True).name == "b-clean-2-short"


def test_the_cost_report_takes_means_of_ratios() -> None:
    names = [column.key for column in clip_cost.COLUMNS]
    found = [
        record("clip_cost", case, dict.fromkeys([*names, "cleaning_peak_memory_ratio"], 1.0 + case.seed))
        for case in clip_cost.clip_cost().cases
    ]
    assert clip_cost.report_cost(found).summary["cleaning_speedup"] == 1.5
    with pytest.raises(DataError, match="no finished case"):
        clip_cost.report_cost([])
