"""The studies of visual prompts on a classifier and images that are small enough to be learned in a second."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from firmground.data.labelled_images import LabelledImages
from firmground.errors import DataError
from firmground.models.classifiers import ImageClassifier
from firmground.models.preprocessing import Preprocessing
from firmground.prompts.visual_files import load_prompt
from firmground.prompts.visual_prompting import VisualPrompting
from firmground.rng import stream
from firmground.studies import prompt_accuracy, prompt_accuracy_report, prompt_attack, prompt_cost, prompt_plain
from firmground.studies.prompt_attack_report import HEADLINE, report_attack
from firmground.studies.prompt_worlds import World
from firmground.studies.runner import Record, case_name
from firmground.types import ignore

SIZE = 16
QUICK = VisualPrompting(mapping="fully-connected", epochs=2, batch_size=16, mapping_step_size=0.05)


class Colours(torch.nn.Module):
    """Six classes: three colours, twice, by means over the image behind a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.look = torch.nn.Conv2d(3, 3, 1, bias=False)
        self.norm = torch.nn.BatchNorm2d(3)
        self.head = torch.nn.Linear(3, 6)
        with torch.no_grad():
            self.look.weight.copy_(torch.eye(3)[..., None, None])
            self.head.weight.copy_(40 * torch.cat([torch.eye(3), torch.eye(3)]))
            self.head.bias.zero_()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        seen: torch.Tensor = self.norm(self.look(pixels)).mean(dim=(2, 3))
        return self.head(seen - seen.mean(dim=1, keepdim=True))  # type: ignore[no-any-return]


def toy_base(*_: str) -> ImageClassifier:
    plain = Preprocessing(size=SIZE, resize=SIZE, mean=(0.0,) * 3, std=(1.0,) * 3)
    return ImageClassifier.of_module(Colours(), 6, plain, source="colours")


def toy_images(count: int, seed: int) -> LabelledImages:
    labels = tuple(i % 3 for i in range(count))
    images = 0.3 + 0.2 * torch.rand(count, 3, 12, 12, generator=stream(seed, "toy"))
    images[torch.arange(count), torch.tensor(labels)] += 0.2
    return LabelledImages(images=images, labels=labels, label_names=("red", "green", "blue"))


def toy_world(name: str) -> World:
    return World(name=name, train=toy_images(90, 0), clean=toy_images(150, 1), test=toy_images(150, 2))


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (prompt_accuracy, prompt_attack):
        monkeypatch.setattr(module, "base", toy_base)
        monkeypatch.setattr(module, "world", toy_world)
    for name in ("efficientnet", "clip"):
        monkeypatch.setitem(prompt_attack.LEARNING, name, QUICK)
        monkeypatch.setitem(prompt_attack.IMAGES, name, 60)
        monkeypatch.setitem(prompt_attack.WEIGHT, name, 1e-3)
        monkeypatch.setitem(prompt_accuracy_report.IMAGES, name, 60)
        monkeypatch.setitem(prompt_accuracy.TESTS, name, 60)
        monkeypatch.setitem(prompt_cost.IMAGES, name, 48)
    monkeypatch.setattr(prompt_cost, "published", toy_base)
    monkeypatch.setattr(prompt_cost, "world", toy_world)
    prompt_attack._clean_accuracy.cache_clear()


def record(study: str, case: Any, results: dict[str, Any]) -> Record:
    return Record(study=study, version=1, case=json.loads(json.dumps(case.__dict__)), results=results, seconds=1.0)


def test_every_case_of_the_attack_is_another() -> None:
    study = prompt_attack.prompt_attack()
    assert len({case_name(study, case) for case in study.cases}) == len(study.cases)
    found = {(case.base, case.world, case.trigger, case.way) for case in study.cases}
    assert found >= {(*HEADLINE.values(), "checker", 0.0), (*HEADLINE.values(), "optimised", 1.0)}


def test_the_distance_is_a_share_of_the_way_to_the_centre() -> None:
    case = prompt_attack.Case(base="efficientnet", world="mnist", way=1.0)
    attack = prompt_attack.attack_of(case, 70, "red")
    side = round(attack.size * 70)
    assert attack.distance == (70 - side) // 2
    assert prompt_attack.attack_of(replace(case, way=0.0), 70, "red").distance == 0
    assert prompt_attack.attack_of(replace(case, trigger="optimised"), 70, "red").optimised
    with pytest.raises(DataError, match="no trigger 'dots'"):
        prompt_attack.attack_of(replace(case, trigger="dots"), 70, "red")


@pytest.mark.slow
@pytest.mark.parametrize("trigger", ["checker", "whole-image"])
def test_an_attack_is_measured_beside_its_controls(trigger: str, tmp_path: Any) -> None:
    case = prompt_attack.Case(**HEADLINE, trigger=trigger)
    found = prompt_attack.run_case(case, ignore, folder=str(tmp_path))
    assert found["accuracy"]["value"] > 0.9
    assert found["accuracy_drop"] == found["clean_accuracy"]["value"] - found["accuracy"]["value"]
    assert found["poisons"] == round(0.05 * 48)
    assert found["asr_clean_prompt"] < 0.1
    again = prompt_attack.run_case(case, ignore, folder=str(tmp_path))  # now the clean prompt comes from its file
    assert again["clean_accuracy"] == found["clean_accuracy"]
    assert json.loads(json.dumps(found)) == found


def test_both_learn_longer_where_a_case_says_so(tmp_path: Any) -> None:
    case = prompt_attack.Longer(**HEADLINE, epochs=3)
    assert prompt_attack.attack_of(case, 70, "red").learning == replace(QUICK, epochs=3)
    assert prompt_attack.run_case(case, ignore, folder=str(tmp_path))["epochs"] == 3
    (path,) = (tmp_path / "prompts").iterdir()
    assert load_prompt(path).settings["epochs"] == 3


def test_the_attack_is_reported_by_base_and_distance() -> None:
    def share(value: float) -> dict[str, float]:
        return {"value": value, "low": value, "high": value, "count": 100}

    grid = [prompt_attack.Case(**HEADLINE), prompt_attack.Case(**HEADLINE, trigger="optimised", way=1.0)]
    grid += [prompt_attack.Case(base="clip", world="fashion", way=way) for way in (0.0, 1.0)]
    results = {
        "accuracy": share(0.8), "clean_accuracy": share(0.81), "accuracy_drop": 0.01, "asr": share(0.99),
        "asr_all": share(0.99), "asr_clean_prompt": 0.1, "asr_grey_prompt": 0.2, "asr_trigger_only": 0.0,
        "learning_seconds": 3.0,
    }  # fmt: skip
    found = [record("prompt_attack", case, results | {"distance": round(10 * case.way)}) for case in grid]
    report = report_attack(found)
    assert report.summary["asr_border"] == report.summary["asr_centre_optimised"] == 0.99
    assert report.summary["accuracy_drop_border"] == 0.01
    assert [chart.name for chart in report.charts] == ["distance-clip-fashion", "distance-efficientnet-mnist"]
    assert report.charts[0].curves == {"checker": [(0.0, 0.99), (10.0, 0.99)]}
    assert "asr_border" not in report_attack(found[2:]).summary
    longer = record("prompt_attack", prompt_attack.Longer(**HEADLINE), results | {"distance": 0, "asr": share(0.97)})
    summary = report_attack([*found, longer]).summary
    assert (summary["epochs_border"], summary["asr_border"], summary["asr_border_shorter"]) == (5, 0.97, 0.99)
    with pytest.raises(DataError, match="no finished case"):
        report_attack([])


def test_accuracies_stand_beside_a_probe_and_no_prompt() -> None:
    case = prompt_accuracy.Case
    grid = [
        case(base="clip", world="mnist", form=prompt_accuracy_report.NONE, mapping=""),
        case(base="clip", world="mnist", form=prompt_accuracy_report.PROBE, mapping=""),
        case(base="clip", world="mnist", form="full-image", mapping="iterated", augmentation="trivial"),
    ]
    found = [prompt_accuracy.run_case(cell, ignore) for cell in grid]
    assert [results["accuracy"]["value"] for results in found[:2]] == [1.0, 1.0]
    records = [record("prompt_accuracy", cell, results) for cell, results in zip(grid, found, strict=True)]
    report = prompt_accuracy_report.report_accuracy(records)
    assert report.summary["clip_mnist_probe"] == report.summary["clip_mnist_none"] == 1.0
    assert report.charts[0].bars is not None
    assert list(report.charts[0].bars)[-1] == "linear probe"
    with pytest.raises(DataError, match="no finished case"):
        prompt_accuracy_report.report_accuracy([])


def test_what_resizing_and_augmentation_change_is_told_by_pairs_of_a_seed() -> None:
    def cell(value: float, images: int = 0, **what: Any) -> Record:
        here: dict[str, Any] = {"base": "clip", "world": "mnist", **what}
        kind = prompt_accuracy.Scarce if images else prompt_accuracy.Case
        case = kind(**here, **({"images": images, "epochs": 9} if images else {}))
        return record("prompt_accuracy", case, {"accuracy": {"value": value, "low": 0.0, "high": 1.0, "count": 10}})

    resized = prompt_accuracy_report.RESIZED
    cells = [cell(0.5 + seed / 10, seed=seed) for seed in range(3)]
    cells += [cell(0.6 + seed / 10, seed=seed, form=resized) for seed in range(4)]  # the last has no fellow
    cells += [cell(0.3, images=5), cell(0.5, images=5, augmentation="trivial"), cell(0.4, augmentation="trivial")]
    report = prompt_accuracy_report.report_accuracy(cells)
    assert report.summary["resize_gain_clip_mnist"] == pytest.approx(0.1)
    assert report.summary["trivial_gain_clip_mnist"] == pytest.approx(-0.1)
    assert report.summary["trivial_gain_clip_mnist_5_images_9_epochs"] == pytest.approx(0.2)
    assert report.summary["clip_mnist_prompt"] == 0.6  # of seed 0 and all images
    assert "| trainable resize | clip | mnist | resized padding | 60 | 8 | 3 | 60.0 | 70.0 | 10.0 |" in report.markdown


def test_scarce_cases_learn_from_their_own_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    whole = VisualPrompting.fit

    def fit(self: VisualPrompting, base: Any, data: LabelledImages, **how: Any) -> Any:
        seen.append((len(data), self.epochs))
        return whole(self, base, data, **how)

    monkeypatch.setattr(VisualPrompting, "fit", fit)
    prompt_accuracy.run_case(prompt_accuracy.Scarce(base="clip", world="mnist", images=30, epochs=1), ignore)
    prompt_accuracy.run_case(prompt_accuracy.Case(base="clip", world="mnist"), ignore)
    assert seen == [(30, 1), (60, prompt_accuracy_report.EPOCHS["clip"])]


def test_the_grid_of_accuracies_has_every_mapping_and_form() -> None:
    study = prompt_accuracy.prompt_accuracy()
    assert len({case_name(study, case) for case in study.cases}) == len(study.cases)
    kinds = {case.mapping for case in study.cases} | {case.form for case in study.cases}
    assert kinds >= {"index", "frequency", "iterated", "fully-connected"}
    assert kinds >= {"padding", "full-image", "fixed-patch", "random-patch", "tokens", prompt_accuracy_report.DEEP}
    assert {case.base for case in study.cases if "tokens" in case.form} == {"vit"}
    assert {case.augmentation for case in study.cases} == {"none", "trivial"}


@pytest.mark.slow
def test_costs_are_ratios_of_one_run() -> None:
    case = prompt_cost.Case(base="clip")
    found = prompt_cost.run_case(case, ignore)
    assert found["learning_speedup"] > 0
    assert found["neural_cleanse_speedup"] > 0
    report = prompt_cost.report_cost([record("prompt_cost", case, found)])
    assert {"learning_speedup", "neural_cleanse_speedup", "guard_overhead"} <= set(report.summary)
    assert report.summary["guard_overhead_clip"] == found["guard_overhead"]
    with pytest.raises(DataError, match="no finished case"):
        prompt_cost.report_cost([])


def test_the_plain_loop_learns_too() -> None:
    """Otherwise it would be no form of the same thing."""
    how = replace(QUICK, mapping="iterated")
    found = prompt_plain.learn_plainly(how, toy_base(), toy_images(48, 0), toy_images(12, 1), rng=stream(0, "plain"))
    fresh = toy_images(30, 5)
    assert found.predict(fresh.images) == list(fresh.labels)
