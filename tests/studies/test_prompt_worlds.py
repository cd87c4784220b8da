"""The worlds and bases of the studies of visual prompts."""

from __future__ import annotations

import pytest
import torch

from firmground.errors import DataError
from firmground.studies.dual_data import CLASSES
from firmground.studies.prompt_worlds import BASES, CANVAS, CLEAN, TEST, TRAIN, WORLDS, base, world


def test_unknown_names_are_refused() -> None:
    with pytest.raises(DataError, match="no world 'moon'; expected one of: fashion, mnist, scenes"):
        world("moon")
    with pytest.raises(DataError, match="no base 'moon'; expected one of: efficientnet, clip, vit"):
        base("moon", "mnist")


@pytest.mark.slow
def test_the_clip_names_what_it_knows() -> None:
    assert base("clip", "scenes").class_names == CLASSES
    assert len(base("clip", "mnist").class_names) == 100


@pytest.mark.real
@pytest.mark.parametrize("name", WORLDS)
def test_a_world_has_three_sets_of_all_labels_and_no_image_twice(name: str) -> None:
    sets = world(name)
    assert [len(part) for part in (sets.train, sets.clean, sets.test)] == [TRAIN, CLEAN, TEST]
    for part in (sets.train, sets.clean, sets.test):
        assert set(part.labels) == set(range(10))
    seen = torch.cat([part.images for part in (sets.train, sets.clean, sets.test)]).flatten(1)
    assert len(seen.unique(dim=0)) == len(seen)
    assert len(sets.small(train=8, clean=6, test=4).clean) == 6


@pytest.mark.real
@pytest.mark.parametrize("name", BASES[:2])  # the third is trained where it is missing
def test_bases_are_frozen_and_see_pixels(name: str) -> None:
    found = base(name, "mnist")
    canvas = torch.full((2, 3, found.image_size, found.image_size), 0.5, requires_grad=True)
    found.read(canvas).logsumexp(dim=1).sum().backward()
    assert canvas.grad is not None
    assert canvas.grad.abs().sum() > 0
    assert not [value for value in found.module.parameters() if value.requires_grad]
    if name == "efficientnet":
        assert found.image_size == CANVAS
