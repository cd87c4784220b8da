"""What stands where in each scene: decided with arrays, before a pixel is drawn or a word written."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from firmground.data.scenes.draws import Floats, Integers, picks, uniforms
from firmground.data.scenes.palette import COLOURS, GROUND_COLOURS, GROUNDS, TEXTURES
from firmground.data.scenes.shapes import SHAPES, TURN, TURNS

if TYPE_CHECKING:
    import numpy.typing as npt

MOST_OBJECTS = 3
MARGIN = 0.02  # of the image's side, between an object's circle and the edge
_ALONE = np.array([(0.16, 0.20), (0.24, 0.30), (0.35, 0.42)])  # radius by size; an object alone may be large
_MAIN = (0.21, 0.235)
_OTHER = (0.15, 0.18)
_FINE = 0.205  # below this radius stripes, dots and checks would break a shape up at 48 pixels
_GAPS = ((0.37, 0.44), (0.56, 0.63))  # no centre lies here, so that left, middle and right are clear
_CONTRAST = 0.48  # least distance in RGB between the background and every object
_QUARTERS = np.array(list(permutations(range(4))))
_REPEAT = 0.25  # chance that a further object has the main one's shape
_PER_SCENE, _PER_OBJECT = 24, 16  # numbers drawn


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Arrays over (scenes, objects), where an object beyond a scene's `count` means nothing, and over (scenes,).

    Shapes index `SHAPES`; lengths and places are in units of the image's side, angles in radians.
    """

    count: Integers
    shape: Integers
    colour: Integers
    texture: Integers
    size: Integers
    rgb: Floats  # (scenes, objects, 3), with its jitter
    radius: Floats
    angle: Floats
    x: Floats
    y: Floats
    grain: Floats  # (scenes, objects, 2): angle and phase of the texture
    ground: Integers
    ground_colour: Integers
    ground_rgb: Floats  # (scenes, 3)
    ground_style: Floats  # (scenes, 2): direction of a gradient, cells of a checker board

    def present(self) -> npt.NDArray[np.bool_]:
        """Which objects exist, (scenes, objects)."""
        return np.arange(self.shape.shape[1])[None] < self.count[:, None]


def lay_out(key: int, numbers: Integers, shapes: Integers, objects: tuple[int, int]) -> Layout:
    """Decides the scenes of the given numbers: `shapes` to choose from, and between how many and how many objects."""
    most = objects[1]
    whole = uniforms(key, numbers, _PER_SCENE + MOST_OBJECTS * _PER_OBJECT)
    own = whole[:, _PER_SCENE:].reshape(len(numbers), MOST_OBJECTS, _PER_OBJECT)[:, :most]
    count = objects[0] + picks(whole[:, 0], objects[1] - objects[0] + 1)
    shape = shapes[picks(own[..., 0], len(shapes))]
    shape = np.where((own[..., 1] < _REPEAT) & (np.arange(most) > 0), shape[:, :1], shape)
    colour = picks(own[..., 2], len(COLOURS))
    radius, size = _radii(own, count)
    x, y = _places(own, whole[:, 1], count, radius)
    turn = np.radians([TURNS.get(name, TURN) for name in SHAPES])
    ground_colour = _ground_colours(whole[:, 2:13], colour, count)
    jitter = (whole[:, 13:16] - 0.5) * 0.08
    return Layout(
        count=count,
        shape=shape,
        colour=colour,
        texture=_textures(own[..., 3], radius),
        size=size,
        rgb=np.clip(_table(COLOURS)[colour] + (own[..., 10:13] - 0.5) * 0.10, 0.0, 1.0),
        radius=radius,
        angle=(2 * own[..., 7] - 1) * turn[shape],
        x=x,
        y=y,
        grain=own[..., 8:10],
        ground=picks(whole[:, 16], len(GROUNDS)),
        ground_colour=ground_colour,
        ground_rgb=np.clip(_table(GROUND_COLOURS)[ground_colour] + jitter, 0.0, 1.0),
        ground_style=whole[:, 17:19],
    )


def place_of(x: Floats, y: Floats) -> Integers:
    """The index into `PLACES` of a centre."""
    column, row = (np.digitize(v, (0.4, 0.6)) for v in (x, y))
    return (3 * row + column).astype(np.int64)


def _table(colours: dict[str, tuple[float, float, float]]) -> Floats:
    return np.array(list(colours.values()))


def _radii(own: Floats, count: Integers) -> tuple[Floats, Integers]:
    size = picks(own[..., 4], 3)
    low, high = _ALONE[size, 0], _ALONE[size, 1]
    several = (count > 1)[:, None]
    first = np.arange(own.shape[1])[None] == 0
    low = np.where(several, np.where(first, _MAIN[0], _OTHER[0]), low)
    high = np.where(several, np.where(first, _MAIN[1], _OTHER[1]), high)
    return low + (high - low) * own[..., 5], np.where(several, np.where(first, 1, 0), size)


def _textures(uniform: Floats, radius: Floats) -> Integers:
    coarse = np.array([TEXTURES.index("plain"), TEXTURES.index("shaded")])
    return np.where(radius < _FINE, coarse[picks(uniform, len(coarse))], picks(uniform, len(TEXTURES)))


def _places(own: Floats, shuffle: Floats, count: Integers, radius: Floats) -> tuple[Floats, Floats]:
    """An object alone lies anywhere inside the image; several lie in quarters of their own, so they never touch."""
    quarter = _QUARTERS[picks(shuffle, len(_QUARTERS))][:, : own.shape[1]]
    several = (count > 1)[:, None]
    found = []
    for axis, offset in ((6, quarter % 2), (13, quarter // 2)):
        low = np.where(several, 0.5 * offset, 0.0) + radius + np.where(several, 0.01, MARGIN)
        high = np.where(several, 0.5 * offset + 0.5, 1.0) - radius - np.where(several, 0.01, MARGIN)
        place = low + (high - low) * own[..., axis]
        for start, end in _GAPS:
            clear = np.where(place < (start + end) / 2, start, end)
            place = np.where((place > start) & (place < end), np.clip(clear, low, high), place)
        found.append(place)
    return found[0], found[1]


def _ground_colours(order: Floats, colour: Integers, count: Integers) -> Integers:
    """The first background colour, in a random order of them, that stands out from all of a scene's objects."""
    apart = np.linalg.norm(_table(COLOURS)[:, None] - _table(GROUND_COLOURS)[None], axis=2)[colour]
    absent = np.arange(colour.shape[1])[None] >= count[:, None]
    least = np.where(absent[..., None], np.inf, apart).min(axis=1)
    penalty = np.where(least < _CONTRAST, 2.0 - least, 0.0)
    chosen: Integers = np.argmin(order + penalty, axis=1)
    return chosen
