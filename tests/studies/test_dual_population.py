"""Every CLIP study's case runs, from drawing the pairs to its results, on sets so small that nothing is learned."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from firmground.data.scenes import TEMPLATES
from firmground.defenses.cleaning import Disarm
from firmground.errors import DataError
from firmground.studies import clip_cleaning, clip_guard, clip_scan, clip_sift, dual_population
from firmground.studies.clip_hard_cases import CLEANED_CONTROL, UNIMODAL, HardCase
from firmground.studies.dual_data import Sets, labelled, scene_pairs
from firmground.studies.dual_population import MANIFEST, Child, base_named, build_base, build_child, built, fresh, load
from firmground.studies.dual_students import Teach
from firmground.types import ignore

if TYPE_CHECKING:
    from firmground.models.dual import DualEncoder

pytestmark = pytest.mark.slow

BASE = "scenes-resnet-1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A population of encoders that have seen 128 pairs."""
    few = replace(dual_population.SCRATCH, epochs=1)
    small = Sets(
        clean=scene_pairs(128, 3), validation=labelled(scene_pairs(160, 4), TEMPLATES),
        test=labelled(scene_pairs(40, 5), TEMPLATES),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dual_population, "SCRATCH", few)
        patch.setattr(dual_population, "FURTHER", few)
        patch.setattr(dual_population, "TEACH", replace(dual_population.TEACH, epochs=1))
        patch.setattr(dual_population, "FIRST", 128)
        patch.setattr(dual_population, "training_pairs", lambda world, seed: scene_pairs(300, 10 + seed))
        for module in (dual_population, clip_cleaning, clip_guard, clip_scan):
            patch.setattr(module, "sets_of", lambda world: small)
        patch.setattr(clip_cleaning, "EPOCHS", 1)
        patch.setattr(clip_cleaning, "LONGER", 2)
        patch.setattr(clip_cleaning, "Disarm", partial(Disarm, rounds=1, search_steps=2, restarts=1, text_epochs=1))
        patch.setattr(clip_cleaning, "MANY", 128)
        patch.setattr(clip_cleaning, "POISONED", ((BASE, "blended"),))
        for name in ("large_test", "large_validation"):
            patch.setattr(clip_cleaning, name, lambda world: small.test)
        yield tmp_path_factory.mktemp("population")
    dual_population.pairs_of.cache_clear()


def test_a_child_is_made_once_and_says_what_was_planted(folder: Path) -> None:
    child = Child(base=BASE, trigger="badnet", rate=0.1)
    place = build_child(folder, child, ignore)
    written = (place / "model.safetensors").stat().st_mtime_ns
    manifest = json.loads((place / MANIFEST).read_text())
    assert manifest["planted"]["poisons"] == 30
    assert set(manifest["asr"]) == {"value", "low", "high", "count"}
    assert json.loads((place / "config.json").read_text())["firmground_planted"]["target"] == "star"
    assert built(folder, child, ignore).trigger == dual_population.TRIGGERS["badnet"]
    assert (place / "model.safetensors").stat().st_mtime_ns == written
    left = [path.name for path in (folder / "dual").iterdir() if path.name.startswith(".")]
    assert not left


def test_pairs_come_back_as_they_were_drawn(folder: Path) -> None:
    base = base_named(BASE)
    drawn = scene_pairs(300, 11)
    dual_population.pairs_of.cache_clear()
    for _ in range(2):  # drawn, or read where a test before has drawn them; then read
        found = dual_population.pairs_of(folder, base)
        assert (found.captions, found.labels, found.label_names) == (drawn.captions, drawn.labels, drawn.label_names)
        assert found.images.equal(drawn.images)
        dual_population.pairs_of.cache_clear()


def test_cases_of_all_studies_run(folder: Path) -> None:
    def of(study: Any, case: Any) -> dict[str, Any]:
        found: dict[str, Any] = study.run_case(case, ignore, folder=str(folder))
        return json.loads(json.dumps(found))  # type: ignore[no-any-return]

    for cleaner in clip_cleaning.CLEANERS:
        case = clip_cleaning.Case(base=BASE, trigger="blended", cleaner=cleaner, step_size=1e-3, pairs=128)
        assert {"accuracy", "asr", "validation", "clean_seconds"} <= set(of(clip_cleaning, case))
    control = HardCase(base=BASE, trigger="", hardship=CLEANED_CONTROL, cleaner="disarm", step_size=1e-3)
    assert {"accuracy", "under blended"} <= set(of(clip_cleaning, control))
    as_it_is = of(clip_cleaning, HardCase(base=BASE, trigger="blended", hardship=UNIMODAL))
    assert as_it_is["large"]["asr"] == as_it_is["asr"], "the same images here"
    assert as_it_is["large"]["validation"] == as_it_is["accuracy"]
    assert (folder / "dual" / f"{BASE}-blended-0.04-0-ssl").is_dir()
    sifted = of(clip_sift, clip_sift.Case(base=BASE, trigger="blended", rate=dual_population.RATE, encoder="own"))
    assert set(sifted["sifters"]) == set(clip_sift.SIFTERS)
    assert sifted["poisons"] == round(dual_population.RATE * 300)
    guarded = of(clip_guard, clip_guard.Case(base=BASE, trigger="blended"))
    assert set(guarded["guards"]) == set(clip_guard.GUARDS)
    assert all(0 <= found["auroc"] <= 1 for found in guarded["guards"].values())


def test_a_student_has_its_teachers_texts_and_a_tower_of_its_own(folder: Path) -> None:
    student = load(build_base(folder, base_named("scenes-thin-1"), ignore))
    teacher = load(build_child(folder, Child(base=BASE), ignore))
    said = ["a photo of a star", "a red ring"]
    assert student.embed_texts(said).equal(teacher.embed_texts(said))
    channels = [encoder.model.config.vision_config.hidden_sizes for encoder in (student, teacher)]
    assert channels == [[16, 32, 64], [32, 64, 128]]
    manifest = json.loads((folder / "dual" / "scenes-thin-1" / MANIFEST).read_text())
    assert manifest["teacher"]["base"] == BASE
    assert manifest["steps"] == 300 // 64


def test_a_tower_learns_to_embed_as_its_teacher() -> None:
    pairs = scene_pairs(256, 11)
    base = base_named("scenes-thin-1")
    student, teacher = fresh(base), fresh(replace(base, seed=5))
    images = pairs.batches(256).__next__().images

    def distance(encoder: DualEncoder) -> float:
        return float(1 - (encoder.embed_images(images) * teacher.embed_images(images)).sum(dim=1).mean())

    taught = Teach(epochs=4, batch_size=32, warm_up=4).train(
        student, teacher, pairs, rng=torch.Generator().manual_seed(0), watch=ignore
    )
    assert taught.steps == 32
    assert distance(taught.encoder) < 0.5 * distance(student)
    assert not any(value.requires_grad for value in taught.encoder.model.parameters())


def test_unknown_bases_are_refused() -> None:
    with pytest.raises(DataError, match="there is no base 'x'"):
        base_named("x")
