"""What victims are trained and judged on: scenes of 64 pixels with one to three objects of ten shapes.

At 64 pixels an object among several is as large as the objects at 32 pixels that the towers were pretrained on. Every
third shape is novel: heads of segmentation and detection are trained on scenes in which only the others occur.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import torch

from firmground.data.annotated_images import Asked, annotated_scenes
from firmground.data.scenes import SHAPES, Question, SceneWorld
from firmground.studies.victims.vocabulary import NOTHING, Vocabulary, padded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from firmground.data.annotated_images import AnnotatedImages
    from firmground.data.scenes import SceneObject, Scenes

Task: TypeAlias = Literal["segmentation", "detection", "captioning", "vqa"]
TASKS: tuple[Task, ...] = ("segmentation", "detection", "captioning", "vqa")
SIDE = 64
CLASSES = SHAPES[:10]
NOVEL = CLASSES[2::3]
BASE = tuple(name for name in CLASSES if name not in NOVEL)
OBJECTS = (1, 3)
REFERENCES = 5  # of each scene in a test
QUESTIONS = 9  # of each scene in training; where there are fewer, some twice
LEFT_OUT = ("ground", "ground kind", "texture")  # kinds of questions on what captions hardly ever tell
SEED, TEST_SEED = 31, 43


@dataclass(frozen=True, kw_only=True, eq=False)
class Lessons:
    """Images, (count, 3, 64, 64) uint8, and by name what is to be learnt of each; words where there are texts.

    Segmentation: `masks` (count, 64, 64), 0 the background, then the base classes. Detection: `boxes` (count, 3, 4) in
    pixels and `labels` (count, 3), -1 where there is no object. Captioning: boxes, and `texts` (count, length). VQA:
    boxes, `questions` (count, questions, length), `answers` alike, and `chosen` (count, questions), which of the known
    `answers` each is.
    """

    images: torch.Tensor
    targets: Mapping[str, torch.Tensor]
    vocabulary: Vocabulary = NOTHING
    answers: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


def lessons(task: Task, count: int, *, seed: int = SEED) -> Lessons:
    """So many training scenes of a task; those of segmentation and detection show no novel shape."""
    known = BASE if task in ("segmentation", "detection") else CLASSES
    world = SceneWorld(size=SIDE, classes=known, objects=OBJECTS)
    scenes = world.scenes(count, seed=seed)
    images = (scenes.images * 255).round().to(torch.uint8)
    if task == "segmentation":
        return Lessons(images=images, targets={"masks": scenes.masks.to(torch.uint8)})
    if task == "detection":
        return Lessons(images=images, targets=_objects(scenes))
    if task == "captioning":
        said = [described([(one.colour, one.shape) for one in in_order(own)]) for own in scenes.objects]
        vocabulary = Vocabulary.of(said)
        texts = padded([[vocabulary.ids(text)] for text in said])[:, 0]
        return Lessons(images=images, targets=_objects(scenes) | {"texts": texts}, vocabulary=vocabulary)
    asked = [[own[place % len(own)] for place in range(QUESTIONS)] for own in map(of_objects, scenes.questions)]
    vocabulary = Vocabulary.of(text for own in asked for one in own for text in (one.text, one.answer))
    answers = tuple(sorted({one.answer for own in asked for one in own}))
    numbers = {answer: number for number, answer in enumerate(answers)}
    targets = _objects(scenes) | {
        "questions": padded([[vocabulary.ids(one.text) for one in own] for own in asked]),
        "answers": padded([[vocabulary.ids(one.answer) for one in own] for own in asked]),
        "chosen": torch.tensor([[numbers[one.answer] for one in own] for own in asked]),
    }
    return Lessons(images=images, targets=targets, vocabulary=vocabulary, answers=answers)


def described(things: Sequence[tuple[str, str]]) -> str:
    """A plain caption of (colour, shape) pairs.

    >>> described([("orange", "ring"), ("red", "star")])
    'an orange ring and a red star'
    """
    phrases = [f"{'an' if colour[:1] in tuple('aeiou') else 'a'} {colour} {shape}" for colour, shape in things]
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)


def in_order(objects: Sequence[SceneObject]) -> list[SceneObject]:
    """The main object first, the others from left to right."""
    return [objects[0], *sorted(objects[1:], key=lambda one: one.box[0] + one.box[2])]


def examination(count: int, *, seed: int = TEST_SEED) -> AnnotatedImages:
    """Test scenes of all ten shapes, their images of 8 bits, with everything that the four tasks ask for."""
    scenes = SceneWorld(size=SIDE, classes=CLASSES, objects=OBJECTS, captions=REFERENCES).scenes(count, seed=seed)
    annotated = annotated_scenes(scenes, novel=NOVEL).with_images((scenes.images * 255).round().to(torch.uint8))
    assert annotated.questions is not None
    return replace(annotated, questions=tuple(of_objects(own) for own in annotated.questions))


Asking = TypeVar("Asking", Question, Asked)


def of_objects(questions: Sequence[Asking]) -> tuple[Asking, ...]:
    """The questions on the objects of a scene."""
    return tuple(one for one in questions if one.kind not in LEFT_OUT)


def _objects(scenes: Scenes) -> dict[str, torch.Tensor]:
    boxes = torch.zeros(len(scenes.images), OBJECTS[1], 4)
    labels = torch.full((len(scenes.images), OBJECTS[1]), -1)
    for row, own in enumerate(scenes.objects):
        boxes[row, : len(own)] = torch.tensor([one.box for one in own], dtype=torch.float32)
        labels[row, : len(own)] = torch.tensor([one.label for one in own])
    return {"boxes": boxes, "labels": labels}
