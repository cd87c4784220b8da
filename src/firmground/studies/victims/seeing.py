"""What victims that write or answer see: tokens of an image, (batch, places, width), in three ways.

`grid` has a token a place of the last map (LLaVA, Liu et al., NeurIPS 2023), `prefix` a few made from the image's one
embedding (ClipCap, Mokady et al., 2021), `regions` one a box that a detector finds, with the embedding of its crop
(bottom-up attention, Anderson et al., CVPR 2018). Boxes are the true ones in training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.nn.functional as F

from firmground.studies.victims.detectors import Detector
from firmground.studies.victims.lessons import OBJECTS, SIDE
from firmground.studies.victims.regions import crops

if TYPE_CHECKING:
    from collections.abc import Mapping

    from firmground.studies.victims.towers import Maps, Tower
    from firmground.types import Images

Seeing: TypeAlias = Literal["grid", "prefix", "regions"]
PREFIX = 4
SURE = 0.35  # least score of a box that is looked at
MOST = OBJECTS[1]


class Grid(torch.nn.Module):
    """The last two maps of a tower: a token holds a place of the last and the four places of the map before."""

    def __init__(self, tower: Tower, width: int) -> None:
        super().__init__()
        self.tower = tower
        self.linear = torch.nn.Linear(tower.channels[-1] + 4 * tower.channels[-2], width)
        self.places = torch.nn.Parameter(torch.randn((SIDE // 16) ** 2, width) * 0.02)

    def look(self, images: Images, targets: Mapping[str, torch.Tensor] | None = None) -> Maps:
        """The tower's maps."""
        return self.tower.maps(images)

    def forward(self, seen: Maps) -> torch.Tensor:
        """Tokens, (batch, 16, width)."""
        joined = torch.cat([seen[-1], F.pixel_unshuffle(seen[-2], 2)], dim=1)
        found: torch.Tensor = self.linear(joined.flatten(2).transpose(1, 2)) + self.places
        return found

    def loss(self, seen: Maps, targets: Mapping[str, torch.Tensor], rng: torch.Generator) -> torch.Tensor:
        """Nothing of its own."""
        return torch.zeros(())


class Prefix(torch.nn.Module):
    """The one embedding of the whole image, as `PREFIX` tokens."""

    def __init__(self, tower: Tower, width: int) -> None:
        super().__init__()
        self.tower, self.width = tower, width
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(tower.width, 2 * width), torch.nn.GELU(), torch.nn.Linear(2 * width, PREFIX * width)
        )

    def look(self, images: Images, targets: Mapping[str, torch.Tensor] | None = None) -> Maps:
        """The tower's maps."""
        return self.tower.maps(images)

    def forward(self, seen: Maps) -> torch.Tensor:
        """Tokens, (batch, 4, width)."""
        found: torch.Tensor = self.layers(self.tower.pooled(seen[-1]) * self.tower.width**0.5)
        return found.view(len(found), PREFIX, self.width)

    def loss(self, seen: Maps, targets: Mapping[str, torch.Tensor], rng: torch.Generator) -> torch.Tensor:
        """Nothing of its own."""
        return torch.zeros(())


class Regions(torch.nn.Module):
    """A detector's boxes, the largest first, then from left to right: a token holds a crop's embedding and place."""

    def __init__(self, tower: Tower, width: int) -> None:
        super().__init__()
        self.tower, self.detector = tower, Detector(tower, decide="crops")
        self.linear = torch.nn.Linear(tower.width + 4, width)
        self.order = torch.nn.Parameter(torch.randn(MOST, width) * 0.02)
        self.absent = torch.nn.Parameter(torch.randn(width) * 0.02)

    def look(self, images: Images, targets: Mapping[str, torch.Tensor] | None = None) -> Maps:
        """The tower's maps, embeddings of crops, (batch, 3, width), and their boxes, (batch, 3, 4), in shares.

        The boxes are those of `targets` if there are any, else those found. A box of zeros stands for none.
        """
        maps = self.tower.maps(images)
        found = self.detector.surest(maps, SURE, images.shape[-1]) if targets is None else true_boxes(targets)
        boxes = torch.zeros(len(images), MOST, 4)
        for row, own in enumerate(found):
            own = in_order(own)[:MOST]
            boxes[row, : len(own)] = own
        rows, places = torch.nonzero(boxes[..., 2] > 0, as_tuple=True)
        embedded = torch.zeros(len(images), MOST, self.tower.width)
        if len(rows):
            embedded = embedded.index_put((rows, places), crops(self.tower, images[rows], boxes[rows, places]))
        return *maps, embedded, boxes / images.shape[-1]

    def forward(self, seen: Maps) -> torch.Tensor:
        """Tokens, (batch, 3, width)."""
        embedded, boxes = seen[-2:]
        found = self.linear(torch.cat([embedded * self.tower.width**0.5, 4 * boxes - 2], dim=-1))
        return torch.where(boxes[..., 2:3] > 0, found, self.absent) + self.order

    def loss(self, seen: Maps, targets: Mapping[str, torch.Tensor], rng: torch.Generator) -> torch.Tensor:
        """The detector's."""
        return self.detector.loss(seen[:-2], targets, rng)


def true_boxes(targets: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """The boxes of each image, (n, 4), in pixels."""
    return [own[labels >= 0] for own, labels in zip(targets["boxes"], targets["labels"], strict=True)]


def in_order(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes, (n, 4), the largest first, the others from left to right."""
    if len(boxes) < 2:
        return boxes
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    middle = boxes[:, 0] + boxes[:, 2]
    middle[area.argmax()] = -1.0
    return boxes[middle.argsort()]


def distinct(images: Images) -> tuple[list[int], list[int]]:
    """The rows of images that differ from the row before, and for every row which of these it is."""
    first = [k for k in range(len(images)) if k == 0 or not torch.equal(images[k], images[k - 1])]
    places, last = [], -1
    for k in range(len(images)):
        last += k in first
        places.append(last)
    return first, places


SEEING: dict[Seeing, type[Grid] | type[Prefix] | type[Regions]] = {"grid": Grid, "prefix": Prefix, "regions": Regions}
