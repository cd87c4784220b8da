"""Victims that describe and answer by naming what a detector finds: CLIP's text tower knows the words.

Boxes without classes are learnt; the crop of each is named by the phrase of colour and shape that it is nearest to. A
caption lists them (as in ConZIC, Zeng et al., CVPR 2023, a frozen CLIP judges every word); a question is a small
program over them (ViperGPT, Suris et al., ICCV 2023).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from firmground.data.scenes import COLOURS, PLACES
from firmground.studies.victims.lessons import CLASSES, described
from firmground.studies.victims.seeing import Regions, distinct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from firmground.studies.victims.towers import Maps, Tower
    from firmground.types import Images

PLACED = 4  # width of the tokens, of which nothing is read here
NUMBERS = ("no", "one", "two", "three")
PHRASES = tuple(f"{colour} {shape}" for shape in CLASSES for colour in COLOURS)


@dataclass(frozen=True, kw_only=True)
class Thing:
    """What was found: its names and its box (x0, y0, x1, y1), in shares of the image's side."""

    shape: str
    colour: str
    box: tuple[float, float, float, float]

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre, across and down."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


class Describer(torch.nn.Module):
    """A detector of things, and what can be said of them."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower
        self.see = Regions(tower, PLACED)

    def look(self, images: Images, targets: Mapping[str, torch.Tensor] | None = None) -> Maps:
        """The tower's maps."""
        return self.tower.maps(images)

    def loss(self, maps: Maps, targets: Mapping[str, torch.Tensor], rng: torch.Generator) -> torch.Tensor:
        """The detector's."""
        return self.see.detector.loss(maps, targets, rng)

    @torch.no_grad()
    def things(self, images: Images) -> list[list[Thing]]:
        """What is in each image, the largest first, then from left to right."""
        *_, embedded, boxes = self.see.look(images)
        best = (embedded @ self.tower.classes(PHRASES).T).argmax(dim=-1).tolist()
        return [
            [named(phrase, box) for phrase, box in zip(own, places, strict=True) if box[2] > 0]
            for own, places in zip(best, boxes.tolist(), strict=True)
        ]

    def caption(self, images: Images) -> tuple[str, ...]:
        """A plain list of what is there."""
        return tuple(described([(one.colour, one.shape) for one in own]) for own in self.things(images))

    def answer(self, images: Images, questions: Sequence[str]) -> tuple[str, ...]:
        """What the program of each question says; neighbours that are the same image are looked at once."""
        first, places = distinct(images)
        seen = self.things(images[first])
        return tuple(answered(text, seen[place]) for text, place in zip(questions, places, strict=True))


def named(phrase: int, box: Sequence[float]) -> Thing:
    """The thing of one of `PHRASES` in a box."""
    colour, shape = PHRASES[phrase].rsplit(" ", 1)
    return Thing(shape=shape, colour=colour, box=(box[0], box[1], box[2], box[3]))


def answered(question: str, things: Sequence[Thing]) -> str:
    """The answer to a question of the scenes' grammar; what is not understood is answered with the first shape."""
    said = re.findall(r"[a-z]+", question.lower())
    words = [word.removesuffix("es") if word == "crosses" else word.removesuffix("s") for word in said]
    shapes = [word for word in words if word in CLASSES or f"{word}s" in CLASSES]
    shapes = [word if word in CLASSES else f"{word}s" for word in shapes]
    colours = [word for word in said if word in COLOURS]
    chosen = [one for one in things if one.shape in shapes[:1]]
    if said[:2] == ["how", "many"]:
        return NUMBERS[min(3, len(chosen if shapes else things))]
    if said[0] in ("is", "do", "does"):
        return _yes_or_no(question, shapes, colours, chosen, things)
    if not things:
        return "no"
    one = (chosen or list(things))[0]
    if not shapes:
        coloured = [thing for thing in things if thing.colour in colours]
        return (coloured or list(things))[0].shape
    if "colour" in said:
        return one.colour
    if said[0] == "where" or "part" in said:
        column, row = (sum(middle > edge for edge in (0.4, 0.6)) for middle in one.middle)
        return PLACES[3 * row + column]
    return sized(one) if "size" in said or "large" in said else one.shape


def sized(one: Thing) -> str:
    """How large a thing is, by the longer side of its box."""
    longer = max(one.box[2] - one.box[0], one.box[3] - one.box[1])
    return "small" if longer < 0.39 else "medium" if longer < 0.65 else "large"


def _yes_or_no(
    question: str, shapes: Sequence[str], colours: Sequence[str], chosen: Sequence[Thing], things: Sequence[Thing]
) -> str:
    if len(shapes) > 1:
        others = [one for one in things if one.shape == shapes[1]]
        return "yes" if chosen and others and related(question, chosen[0], others[0]) else "no"
    fitting = [one for one in chosen if not colours or one.colour in colours]
    return "yes" if fitting else "no"


def related(question: str, one: Thing, other: Thing) -> bool:
    """Whether the first lies to the second as the question says, on the axis on which they are further apart."""
    across, down = (a - b for a, b in zip(one.middle, other.middle, strict=True))
    if abs(across) >= abs(down):
        return ("left" if across < 0 else "right") in question
    return ("above" if down < 0 else "below") in question
