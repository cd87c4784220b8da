from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from firmground.data.scenes import COLOURS
from firmground.errors import BrokenModelError, DataError, UnsupportedModelError
from firmground.models.dual import DualEncoder
from firmground.models.embedded import embedded
from firmground.models.tiny_dual import tiny_clip
from firmground.studies.victims.building import MANIFEST, WEIGHTS, Recipe, build, built
from firmground.studies.victims.catalogue import GROUPS, TOWERS, VICTIMS, VIT_VICTIMS, Plan, victim_named
from firmground.studies.victims.describers import Thing, answered, sized
from firmground.studies.victims.fitting import Fit, cached, pace
from firmground.studies.victims.lessons import BASE, CLASSES, NOVEL, TASKS, described, examination, lessons
from firmground.studies.victims.regions import box_of, crops, parts
from firmground.studies.victims.seeing import distinct, in_order
from firmground.studies.victims.segmenters import Segmenter, Untrained, otsu, painted
from firmground.studies.victims.towers import Tower
from firmground.studies.victims.vocabulary import END, UNKNOWN, Vocabulary
from firmground.studies.victims.writers import joined
from firmground.types import ignore

if TYPE_CHECKING:
    from pathlib import Path

QUICK = Recipe(count=32, fit=Fit(epochs=1), reading=1)
PLANS = [
    Plan(task=task, head=head, tower="resnet-1", tuned=tuned)
    for task, head, tuned in (
        ("segmentation", "untrained", False), ("segmentation", "masks", False), ("segmentation", "pixels", True),
        ("segmentation", "crops", False), ("detection", "centres", True), ("detection", "regions", False),
        ("detection", "crops", False), ("captioning", "attributes", False), ("captioning", "prefix", False),
        ("captioning", "gpt2", False), ("captioning", "llama", True), ("vqa", "program", False),
        ("vqa", "film", False), ("vqa", "attention", True), ("vqa", "llama", False),
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("population")


@pytest.fixture(scope="module")
def tower() -> Tower:
    return Tower(DualEncoder.load(embedded("clip-clean")))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    exam = examination(3)
    return torch.stack([exam.image(row) for row in range(3)])


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_every_head_does_its_task(plan: Plan, folder: Path, images: torch.Tensor) -> None:
    victim, names = built(folder, plan, ignore, recipe=QUICK), ("background", *CLASSES)
    assert not victim.training
    match plan.task:
        case "segmentation":
            found = victim.segment(images, names)
            assert found.shape == (3, 64, 64)
            assert found.dtype == torch.int64
            assert 0 <= int(found.min()) <= int(found.max()) < len(names)
        case "detection":
            found = victim.detect(images, CLASSES)
            assert len(found) == 3
            assert all(0 <= float(one.boxes.min()) <= float(one.boxes.max()) <= 64 for one in found if len(one.boxes))
        case "captioning":
            assert all(isinstance(text, str) for text in victim.caption(images))
        case "vqa":
            twice = images.repeat_interleave(2, dim=0)
            asked = ["how many objects are there?", "is there a star?"] * 3
            together = victim.answer(twice, asked)
            assert together == tuple(victim.answer(twice[k : k + 1], asked[k : k + 1])[0] for k in range(6))


@pytest.mark.slow
def test_a_victim_is_built_once_and_alike_under_one_seed(folder: Path, tmp_path: Path) -> None:
    plan = PLANS[2]
    place = build(folder, plan, ignore, recipe=QUICK)
    before = (place / WEIGHTS).stat().st_mtime_ns
    assert build(folder, plan, ignore, recipe=QUICK) == place
    assert (place / WEIGHTS).stat().st_mtime_ns == before
    again = build(tmp_path, plan, ignore, recipe=QUICK)
    assert (again / WEIGHTS).read_bytes() == (place / WEIGHTS).read_bytes()
    assert not [path for path in (tmp_path / "victims").iterdir() if path.name.startswith(".")]
    (again / MANIFEST).write_text("{")
    with pytest.raises(BrokenModelError, match="remove it"):
        built(tmp_path, plan, ignore, recipe=QUICK)


@pytest.mark.slow
def test_only_a_tuned_tower_is_in_the_file(folder: Path) -> None:
    sizes = {
        plan.tuned: (build(folder, plan, ignore, recipe=QUICK) / WEIGHTS).stat().st_size
        for plan in PLANS
        if plan.task == "captioning"
    }
    assert sizes[True] > sizes[False] + 1_000_000


def test_the_catalogue_covers_tasks_and_groups() -> None:
    assert len({plan.name for plan in VICTIMS}) == len(VICTIMS) >= 24
    for task in TASKS:
        assert {plan.group("resnet-1") for plan in VICTIMS if plan.task == task} == set(GROUPS)
    assert {plan.tower for plan in (*VICTIMS, *VIT_VICTIMS)} == set(TOWERS)
    assert Plan(task="vqa", head="film", tower="deep-3").group("deep-3") == "white box"
    with pytest.raises(DataError, match="there is no victim"):
        victim_named("nobody")
    with pytest.raises(DataError, match="there is no tower"):
        built(embedded("clip-clean"), Plan(task="vqa", head="film", tower="babel"), ignore, recipe=QUICK)


def test_novel_shapes_are_not_in_the_lessons_of_open_vocabulary_heads() -> None:
    assert set(BASE) | set(NOVEL) == set(CLASSES)
    assert not set(BASE) & set(NOVEL)
    masks = lessons("segmentation", 64).targets["masks"]
    assert int(masks.max()) == len(BASE)
    exam = examination(24)
    assert exam.novel == NOVEL
    assert exam.objects is not None
    assert exam.questions is not None
    assert {exam.names[label] for own in exam.objects for label in own.labels} & set(NOVEL)
    assert "ground" not in {one.kind for own in exam.questions for one in own}


@pytest.mark.slow
def test_a_head_learns() -> None:
    tower = Tower(DualEncoder.load(embedded("clip-clean")))
    learnt, losses = lessons("segmentation", 64), []
    for epochs in (1, 6):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            victim = Segmenter(tower, decide="crops", width=16, stride=8)
        maps = cached(victim, learnt)
        losses.append(Fit(epochs=epochs).train(victim, learnt, maps=maps, rng=torch.Generator().manual_seed(0)))
    assert losses[1] < 0.9 * losses[0]
    assert [round(pace(step, 100), 2) for step in (0, 10, 55, 100)] == [0.09, 1.0, 0.5, 0.0]


def test_towers_show_images_at_their_own_size(tower: Tower, images: torch.Tensor) -> None:
    assert [one.shape[-1] for one in tower.maps(images)] == [16, 8, 4]
    small = torch.nn.functional.interpolate(images, size=32)
    assert torch.allclose(tower.embed(small), tower.encoder.embed_images(small), atol=1e-5)
    last = tower.maps(images)[-1]
    whole = torch.nn.functional.normalize(tower.project(last).mean(dim=(2, 3)), dim=1)
    assert torch.allclose(whole, tower.pooled(last), atol=1e-5)
    with pytest.raises(UnsupportedModelError, match="strides"):
        Tower(tiny_clip(image_size=64, patch_size=16))


def test_a_mask_without_classes_finds_a_bright_square(tower: Tower) -> None:
    picture = torch.full((1, 3, 64, 64), 0.2)
    picture[..., 20:44, 24:48] = 0.9
    found = Untrained(tower).segment(picture, ("background", "square", "circle"))[0] > 0
    truth = torch.zeros(64, 64, dtype=torch.bool)
    truth[20:44, 24:48] = True
    assert int((found & truth).sum()) / int((found | truth).sum()) > 0.5
    assert bool((Untrained(tower).segment(picture, ("square", "circle")) >= 0).all())
    assert 0.2 <= otsu(torch.tensor([0.1, 0.15, 0.2, 0.8, 0.9])) < 0.8


def test_regions() -> None:
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[2:6, 3:9] = mask[10:15, 10:15] = True
    mask[0, 15] = True
    assert [box_of(part) for part in parts(mask)] == [(3, 2, 9, 6), (10, 10, 15, 15)]
    boxes = torch.tensor([[40.0, 0, 50, 10], [0, 0, 30, 30], [10, 0, 15, 5]])
    assert in_order(boxes)[:, 0].tolist() == [0.0, 10.0, 40.0]
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[None, :, None]
    assert painted(logits, torch.tensor([[[True, False]]]), [1, 2], 0).tolist() == [[[2, 0]]]


def test_a_crop_shows_its_box(tower: Tower) -> None:
    picture = torch.zeros(1, 3, 64, 64)
    picture[..., 16:48, 16:48] = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    side = 32 / 1.3
    box = torch.tensor([[32 - side / 2, 32 - side / 2, 32 + side / 2, 32 + side / 2]])
    assert torch.allclose(crops(tower, picture, box), tower.embed(picture[..., 16:48, 16:48]), atol=1e-5)


def test_words() -> None:
    words = Vocabulary.of(["a red star", "one five-pointed star?"])
    assert words.text(words.ids("a five-pointed star")) == "a five-pointed star"
    assert words.ids("zebra") == [UNKNOWN, END]
    assert described([("orange", "ring"), ("red", "star"), ("blue", "drop")]) == (
        "an orange ring, a red star and a blue drop"
    )
    ids, start = joined(torch.tensor([[5, 1, 0], [5, 6, 1]]), torch.tensor([[7, 1], [8, 1]]))
    assert ids.tolist() == [[5, 1, 7, 1, 0], [5, 6, 1, 8, 1]]
    assert start.tolist() == [2, 3]
    same = torch.stack([torch.zeros(3), torch.zeros(3), torch.ones(3), torch.zeros(3)])
    assert distinct(same) == ([0, 2, 3], [0, 0, 1, 2])


def test_a_program_answers_every_kind_of_question_from_the_truth() -> None:
    """With perfect things, all that can be wrong is the program."""
    exam = examination(40)
    assert exam.objects is not None
    assert exam.questions is not None
    asked, right = 0, 0
    for row, own in enumerate(exam.objects):
        things = [
            Thing(shape=exam.names[label], colour=_colour(exam, row, place), box=tuple(side / 64 for side in box))
            for place, (box, label) in enumerate(zip(own.boxes, own.labels, strict=True))
        ]
        for one in exam.questions[row]:
            if one.kind in ("count", "count of", "presence", "place", "relation", "size", "main shape"):
                asked += 1
                right += answered(one.text, things) == one.answers[0]
    assert right > 0.9 * asked
    assert answered("what colour is the star?", []) == "no"
    assert sized(Thing(shape="star", colour="red", box=(0, 0, 0.8, 0.8))) == "large"


def _colour(exam: Any, row: int, place: int) -> str:
    return tuple(COLOURS)[(row + place) % len(COLOURS)]
