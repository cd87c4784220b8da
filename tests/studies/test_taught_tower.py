"""A vision transformer taught by a convolutional tower, and what stands on it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from firmground.errors import DataError, UnsupportedModelError
from firmground.models.dual import DualEncoder
from firmground.models.embedded import embedded
from firmground.models.tiny_dual import tiny_clip
from firmground.rng import stream
from firmground.studies import find_study
from firmground.studies.dual_data import scene_pairs
from firmground.studies.transfer_cases import STEPS, TOKENS, Case, method_of
from firmground.studies.transfer_vit import JURY, cases
from firmground.studies.victims.catalogue import TOWERS, VIT, VIT_VICTIMS
from firmground.studies.victims.describers import Describer
from firmground.studies.victims.lessons import CLASSES, TASKS, examination
from firmground.studies.victims.segmenters import Segmenter
from firmground.studies.victims.taught_tower import TEACH, fresh, teach, viewed
from firmground.studies.victims.towers import Tower, TransformerTower


@pytest.fixture(scope="module")
def teacher() -> DualEncoder:
    return DualEncoder.load(embedded("clip-clean"))


@pytest.mark.slow
def test_a_student_comes_near_to_its_teacher_and_shares_its_texts(teacher: DualEncoder) -> None:
    pairs, short = scene_pairs(64, 99), replace(TEACH, epochs=6, batch_size=16, warm_up=4)
    before, losses = fresh(), []
    taught = teach(
        before, teacher, pairs, short, watch=lambda step, total, stage, **terms: losses.append(terms), resume=None
    )
    assert taught.steps == len(losses) == 24
    assert sum(one["distance"] for one in losses[-4:]) < 0.8 * sum(one["distance"] for one in losses[:4])
    assert sum(one["places"] for one in losses[-4:]) < 0.8 * sum(one["places"] for one in losses[:4])
    student, images = taught.encoder, torch.stack([pairs.image(row) for row in range(32)])
    wanted = teacher.embed_images(images)
    near, far = ((one.embed_images(images) * wanted).sum(dim=1).mean() for one in (student, before))
    assert near > far + 0.2
    said = ["a photo of a star"]
    assert torch.allclose(student.embed_texts(said), teacher.embed_texts(said), atol=1e-6)
    assert student.model.vision_model.config.model_type == "clip_vision_model"


def test_views_are_zoomed_and_shifted_each_by_itself() -> None:
    images = torch.rand(4, 3, 32, 32, generator=stream(1)).repeat_interleave(2, dim=0)
    seen = viewed(images, 48, stream(2))
    assert seen.shape == (8, 3, 48, 48)
    assert 0 <= float(seen.min()) <= float(seen.max()) <= 1
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen, viewed(images, 48, stream(2)))
    plain = torch.full((2, 3, 32, 32), 0.3)
    assert torch.allclose(viewed(plain, 48, stream(3)), torch.tensor(0.3))


@pytest.mark.slow
def test_a_transformer_gives_maps_as_a_convolutional_tower_does() -> None:
    exam = examination(2)
    images, tower = torch.stack([exam.image(row) for row in range(2)]), Tower.of(fresh())
    assert isinstance(tower, TransformerTower)
    maps = tower.maps(images)
    assert [one.shape[-1] for one in maps] == [16, 8, 4]
    assert tuple(one.shape[1] for one in maps) == tower.channels
    assert tower.project(maps[-1]).shape == (2, tower.width, 4, 4)
    small = torch.nn.functional.interpolate(images, size=48)
    assert torch.allclose(tower.embed(small), tower.encoder.embed_images(small), atol=1e-5)
    found = Segmenter(tower, decide="crops").eval().segment(images, ("background", *CLASSES))
    assert found.shape == (2, 64, 64)
    assert len(Describer(tower).eval().caption(images)) == 2
    with pytest.raises(UnsupportedModelError, match="strides"):
        Tower.of(tiny_clip(image_size=64, patch_size=16))


def test_a_patch_lies_where_it_is_in_the_image() -> None:
    tower, images = Tower.of(fresh()), torch.zeros(1, 3, 64, 64)
    marked = images.clone()
    marked[..., 8:16, 48:56] = 1.0
    apart = (tower.maps(marked)[1] - tower.maps(images)[1]).square().sum(dim=1)[0]
    assert int(apart.argmax()) == 1 * 8 + 6


def test_every_case_of_the_transformers_study_has_its_attack() -> None:
    grid = cases()
    assert len(set(grid)) == len(grid)
    assert find_study("transfer-vit").cases == grid
    assert {plan.task for plan in VIT_VICTIMS} == set(TASKS)
    assert VIT in TOWERS
    assert {plan.group(VIT) for plan in JURY} == {"white box", "other tower"}
    for variant, settings in TOKENS.items():
        assert (
            method_of(Case(attack="prm", epsilon=8, surrogate=VIT, variant=variant), STEPS).tokens == settings["tokens"]
        )
    with pytest.raises(DataError, match="there is no attack"):
        method_of(Case(attack="prm", epsilon=8, variant="no tokens"), STEPS)
