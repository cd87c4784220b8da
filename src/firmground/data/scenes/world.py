"""`SceneWorld`: which scenes there can be; `Scenes`: some of them, drawn and described."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from firmground.data.scenes.draws import key, uniforms
from firmground.data.scenes.layout import MOST_OBJECTS, Layout, lay_out, place_of
from firmground.data.scenes.painting import paint
from firmground.data.scenes.palette import COLOURS, GROUND_COLOURS, GROUNDS, PLACES, SIZES, TEXTURES
from firmground.data.scenes.questions import Question, ask
from firmground.data.scenes.shapes import SHAPES
from firmground.data.scenes.words import Ground, SceneObject, caption
from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firmground.data.scenes.draws import Integers

LEAST_SIZE = 24  # pixels: below it, shapes can no longer be told apart
_CAPTION_DRAWS, _QUESTION_DRAWS = 28, 24
_COLOURS, _GROUND_COLOURS = tuple(COLOURS), tuple(GROUND_COLOURS)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One scene; see `Scenes`. `image` is (3, side, side), `mask` (side, side)."""

    image: torch.Tensor
    mask: torch.Tensor
    label: int
    objects: tuple[SceneObject, ...]
    ground: Ground
    captions: tuple[str, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenes:
    """A batch of scenes.

    `images` (scenes, 3, side, side) float in [0, 1]; `masks` (scenes, side, side) int64, the class of each pixel plus
    one and 0 for the background; `labels` (scenes,) int64, the class of the main object, which comes first in
    `objects` and is the largest. Classes index `classes`. `captions` holds one caption or more of each scene.
    """

    images: torch.Tensor
    masks: torch.Tensor
    labels: torch.Tensor
    objects: tuple[tuple[SceneObject, ...], ...]
    grounds: tuple[Ground, ...]
    captions: tuple[tuple[str, ...], ...]
    questions: tuple[tuple[Question, ...], ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Scene:
        return Scene(
            image=self.images[i],
            mask=self.masks[i],
            label=int(self.labels[i]),
            objects=self.objects[i],
            ground=self.grounds[i],
            captions=self.captions[i],
            questions=self.questions[i],
        )

    @property
    def texts(self) -> list[str]:
        """The first caption of each scene."""
        return [captions[0] for captions in self.captions]


@dataclass(frozen=True, kw_only=True)
class SceneWorld:
    """Scenes of one to three objects on a background, at `size` pixels, with words for all that is in them.

    `classes` are the shapes that occur, in the order of their labels; `objects` is the least and the greatest number
    of objects; `captions` the number of captions of each scene. Scene number 7 under one seed is the same scene, bit
    for bit, in whatever batch it is made; at another `size` it is the same scene drawn finer. Raises `DataError` for
    a shape that does not exist, more than three objects, or a size below 24 pixels.
    """

    size: int = 48
    classes: tuple[str, ...] = SHAPES
    objects: tuple[int, int] = (1, 1)
    captions: int = 1

    def __post_init__(self) -> None:
        unknown = [name for name in self.classes if name not in SHAPES]
        if unknown or not self.classes or len(set(self.classes)) < len(self.classes):
            raise DataError(
                f"expected one or more different shapes, got {self.classes!r}; choose from: {', '.join(SHAPES)}"
            )
        if not 1 <= self.objects[0] <= self.objects[1] <= MOST_OBJECTS:
            raise DataError(f"expected between 1 and {MOST_OBJECTS} objects, as (least, greatest), got {self.objects}")
        if self.size < LEAST_SIZE:
            raise DataError(f"expected a size of at least {LEAST_SIZE} pixels, got {self.size}; shapes blur below it")
        if self.captions < 1:
            raise DataError(f"expected at least one caption a scene, got {self.captions}")

    def scenes(self, count: int, *, seed: int, first: int = 0) -> Scenes:
        """Makes the scenes number `first` to `first + count - 1` of a seed; all in memory, so mind `count`."""
        if count < 1 or first < 0:
            raise DataError(f"expected at least one scene from number 0 or later, got {count} from {first}")
        numbers = np.arange(first, first + count)
        shapes = np.array([SHAPES.index(name) for name in self.classes])
        layout = lay_out(key(seed, "layout"), numbers, shapes, self.objects)
        painted = paint(layout, self.size, key(seed, "noise"), numbers)
        labels = np.array([self.classes.index(name) if name in self.classes else 0 for name in SHAPES])[layout.shape]
        present = torch.from_numpy(layout.present())
        values = (torch.from_numpy(labels) + 1) * present
        objects = _objects(layout, labels, painted.visible, self.classes)
        grounds = _grounds(layout)
        return Scenes(
            images=painted.images,
            masks=(painted.visible * values[:, :, None, None]).amax(dim=1),
            labels=torch.from_numpy(labels[:, 0]),
            objects=objects,
            grounds=grounds,
            captions=self._captions(objects, grounds, seed, numbers),
            questions=self._questions(objects, grounds, seed, numbers),
            classes=self.classes,
        )

    def batches(self, count: int, *, seed: int, batch_size: int = 256, first: int = 0) -> Iterator[Scenes]:
        """The same scenes, `batch_size` at a time: as many as one likes, in the memory of one batch."""
        if batch_size < 1:
            raise DataError(f"expected a batch of at least one scene, got {batch_size}")
        for start in range(0, count, batch_size):
            yield self.scenes(min(batch_size, count - start), seed=seed, first=first + start)

    def _captions(
        self, objects: tuple[tuple[SceneObject, ...], ...], grounds: tuple[Ground, ...], seed: int, numbers: Integers
    ) -> tuple[tuple[str, ...], ...]:
        rows = uniforms(key(seed, "captions"), numbers, self.captions * _CAPTION_DRAWS).tolist()
        return tuple(
            tuple(
                caption(own, ground, iter(row[k * _CAPTION_DRAWS : (k + 1) * _CAPTION_DRAWS]))
                for k in range(self.captions)
            )
            for own, ground, row in zip(objects, grounds, rows, strict=True)
        )

    def _questions(
        self, objects: tuple[tuple[SceneObject, ...], ...], grounds: tuple[Ground, ...], seed: int, numbers: Integers
    ) -> tuple[tuple[Question, ...], ...]:
        rows = uniforms(key(seed, "questions"), numbers, _QUESTION_DRAWS).tolist()
        return tuple(
            ask(own, ground, self.classes, iter(row)) for own, ground, row in zip(objects, grounds, rows, strict=True)
        )


def _objects(
    layout: Layout, labels: Integers, visible: torch.Tensor, classes: tuple[str, ...]
) -> tuple[tuple[SceneObject, ...], ...]:
    boxes, places = _boxes(visible), place_of(layout.x, layout.y).tolist()
    label, colour, texture, size = (v.tolist() for v in (labels, layout.colour, layout.texture, layout.size))
    return tuple(
        tuple(
            SceneObject(
                shape=classes[label[i][k]],
                label=label[i][k],
                colour=_COLOURS[colour[i][k]],
                texture=TEXTURES[texture[i][k]],
                size=SIZES[size[i][k]],
                place=PLACES[places[i][k]],
                box=boxes[i][k],
            )
            for k in range(count)
        )
        for i, count in enumerate(layout.count.tolist())
    )


def _boxes(visible: torch.Tensor) -> list[list[tuple[int, int, int, int]]]:
    """The smallest boxes (x0, y0, x1, y1) that hold each object's pixels."""
    across, down = visible.any(dim=-2).int(), visible.any(dim=-1).int()
    sides = [line.argmax(-1) for line in (across, down)]
    ends = [line.shape[-1] - line.flip(-1).argmax(-1) for line in (across, down)]
    rows = torch.stack([*sides, *ends], dim=-1).tolist()
    return [[(x0, y0, x1, y1) for x0, y0, x1, y1 in row] for row in rows]


def _grounds(layout: Layout) -> tuple[Ground, ...]:
    pairs = zip(layout.ground.tolist(), layout.ground_colour.tolist(), strict=True)
    return tuple(Ground(kind=GROUNDS[kind], colour=_GROUND_COLOURS[colour]) for kind, colour in pairs)
