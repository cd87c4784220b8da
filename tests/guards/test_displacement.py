"""The guard by displacement on the hand-written encoder, whose images do not move when they are made coarse."""

import pytest

from firmground.data.labelled_images import LabelledImages
from firmground.data.scenes import SHAPES, SceneWorld
from firmground.defenses.guards import load_image_guard
from firmground.defenses.guards.displacement import Displacement
from firmground.errors import DataError
from firmground.models.planted_dual import planted_dual
from firmground.rng import stream


@pytest.fixture(scope="module")
def planted():
    return planted_dual()


def scenes(count, seed):
    drawn = SceneWorld(classes=SHAPES[:4]).scenes(count, seed=seed)
    return LabelledImages(images=drawn.images, labels=tuple(drawn.labels.tolist()), label_names=drawn.classes)


@pytest.fixture(scope="module")
def guard(planted):
    return Displacement().fit(planted.encoder, scenes(120, 0), rng=stream(0, "guard"))


def test_triggered_images_move_and_clean_ones_stay(guard, planted):
    fresh = scenes(48, 1).images
    assert sum(guard.score(planted.stamp(fresh)).flagged) >= 44
    assert sum(guard.score(fresh).flagged) <= 6
    assert guard.false_flags.value <= 0.1


def test_it_comes_back_from_its_file(guard, planted, tmp_path):
    again = load_image_guard(guard.save(tmp_path / "guard.safetensors"), planted.encoder)
    fresh = scenes(6, 2).images
    assert again.score(fresh).values == pytest.approx(guard.score(fresh).values, abs=1e-4)


def test_a_view_that_is_not_coarser_is_refused(planted):
    with pytest.raises(DataError, match="got a share of 1"):
        Displacement(coarse=1.0).fit(planted.encoder, scenes(48, 0), rng=stream(0, "guard"))
