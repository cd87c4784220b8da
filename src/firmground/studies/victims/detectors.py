"""Victims that detect: centres and boxes without classes, and classes by embeddings of names.

The box head is CenterNet's (Zhou et al., "Objects as Points", 2019) at stride 8. `centres` classifies by the embedding
at the centre, aligned with the names'; `regions` by the tower's own embedding in the box (F-VLM, Kuo et al., ICLR
2023); `crops` by that of the box's crop (as ViLD's teacher, Gu et al., ICLR 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.nn.functional as F

from firmground.data.annotated_images import Detections
from firmground.models.dual import unit
from firmground.studies.victims.lessons import BASE, SIDE
from firmground.studies.victims.necks import Neck, at_side
from firmground.studies.victims.regions import crops, pooled
from firmground.studies.victims.segmenters import SHARPNESS, zeroed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from firmground.studies.victims.towers import Maps, Tower
    from firmground.types import Embeddings, Images

Deciding: TypeAlias = Literal["centres", "regions", "crops"]
STRIDE = 8
MOST, LEAST = 6, 0.05  # detections of an image, and the least score of one
UNIT = 16.0  # pixels, in which distances to the sides of a box are learnt
SPREAD = 0.18  # of a box's side, the deviation of its spot on the map of centres


class Detector(torch.nn.Module):
    """Boxes without classes from `levels` maps of the tower, and an embedding for each."""

    def __init__(self, tower: Tower, *, decide: Deciding, levels: int = 3, width: int = 48) -> None:
        super().__init__()
        self.tower, self.decide = tower, decide
        self.neck = Neck(tower, levels=levels, stride=STRIDE, width=width)
        self.where = torch.nn.Conv2d(width, 5, 1)  # a centre's logit, and the distances to left, top, right, bottom
        self.what = torch.nn.Conv2d(width, tower.width, 1)
        zeroed(self.what)

    def forward(self, maps: Maps) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits of centres, (batch, side, side), boxes in pixels, (batch, side, side, 4), and embeddings."""
        mixed = self.neck(maps)
        found = self.where(mixed)
        side = mixed.shape[-1]
        line = (torch.arange(side) + 0.5) * STRIDE
        middle = torch.stack([line.expand(side, side), line[:, None].expand(side, side)] * 2, dim=-1)
        sign = torch.tensor([-1.0, -1.0, 1.0, 1.0])
        boxes = middle + sign * UNIT * F.softplus(found[:, 1:].permute(0, 2, 3, 1))
        own = at_side(self.tower.project(maps[-1]), side)
        return found[:, 0], boxes, own + self.what(mixed) if self.decide == "centres" else own

    def look(self, images: Images, targets: Mapping[str, torch.Tensor] | None = None) -> Maps:
        """The tower's maps."""
        return self.tower.maps(images)

    def loss(self, maps: Maps, targets: Mapping[str, torch.Tensor], rng: torch.Generator) -> torch.Tensor:
        """Cross-entropy of spots around centres, distance of boxes, and where they are learnt, of base classes."""
        logits, boxes, embedding = self(maps)
        spots, (rows, objects) = self._spots(targets), torch.nonzero(targets["labels"] >= 0, as_tuple=True)
        heat = (spots * (targets["labels"] >= 0)[..., None, None]).amax(dim=1)
        weight = 1 + 4 * heat
        total: torch.Tensor = F.binary_cross_entropy_with_logits(logits, heat, weight=weight)
        truth, labels = targets["boxes"][rows, objects], targets["labels"][rows, objects]
        near = spots[rows, objects]
        off = (boxes[rows] - truth[:, None, None]).abs().sum(dim=-1) / UNIT
        total = total + 0.5 * (off * near).sum() / near.sum()
        if self.decide == "centres":
            places = torch.einsum("ndij,nij->nd", unit(embedding.movedim(1, -1)).movedim(-1, 1)[rows], near)
            total = total + F.cross_entropy(SHARPNESS * unit(places) @ self.tower.classes(BASE).T, labels)
        return total

    def _spots(self, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """A bump at each object's centre, (batch, objects, side, side), that reaches 1 at the nearest place."""
        boxes = targets["boxes"]
        line = (torch.arange(SIDE // STRIDE) + 0.5) * STRIDE
        middle = (boxes[..., :2] + boxes[..., 2:]) / 2
        spread = SPREAD * (boxes[..., 2:] - boxes[..., :2]).clamp(min=STRIDE)
        across, down = (torch.exp(-(((line - middle[..., k, None]) / spread[..., k, None]) ** 2) / 2) for k in (0, 1))
        bump = down[..., :, None] * across[..., None, :]
        spots: torch.Tensor = bump / bump.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
        return spots

    @torch.no_grad()
    def detect(self, images: Images, names: Sequence[str]) -> tuple[Detections, ...]:
        """The surest boxes of each image, each of the name that its embedding is nearest to."""
        peaks, boxes, embedding = self._peaks(self.tower.maps(images), images.shape[-1])
        best, places = peaks.topk(MOST, dim=1)
        texts, found = self.tower.classes(names), []
        for row in range(len(images)):
            sure = best[row] > LEAST
            own, kept = boxes[row, places[row][sure]], places[row][sure]
            alike = SHARPNESS * self._embedded(images[row], embedding[row], own, kept) @ texts.T
            likely, labels = alike.softmax(dim=1).max(dim=1)
            found.append(Detections(boxes=own, scores=best[row][sure] * likely, labels=labels))
        return tuple(found)

    @torch.no_grad()
    def surest(self, maps: Maps, least: float, side: int) -> list[torch.Tensor]:
        """The boxes without classes of each image, (n, 4), whose score is `least` or more."""
        peaks, boxes, _ = self._peaks(maps, side)
        return [own[scores >= least] for own, scores in zip(boxes, peaks, strict=True)]

    def _peaks(self, maps: Maps, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores, (batch, places), 0 beside a better one, boxes inside the image, (batch, places, 4), embeddings."""
        logits, boxes, embedding = self(maps)
        scores = logits.sigmoid()
        peaks = torch.where(F.max_pool2d(scores, 3, 1, 1) == scores, scores, 0.0).flatten(1)
        return peaks, boxes.flatten(1, 2).clamp(0, side), embedding

    def _embedded(
        self, image: torch.Tensor, embedding: torch.Tensor, boxes: torch.Tensor, places: torch.Tensor
    ) -> Embeddings:
        if not len(boxes):
            return torch.zeros(0, self.tower.width)
        if self.decide == "crops":
            return crops(self.tower, image.expand(len(boxes), -1, -1, -1), boxes)
        if self.decide == "regions":
            return pooled(embedding, [inside(box, image.shape[-1]) for box in boxes])
        return unit(embedding.flatten(1)[:, places].T)


def inside(box: torch.Tensor, side: int) -> torch.Tensor:
    """The ellipse that a box holds, as a mask: its corners show the background more often than not."""
    line = torch.arange(side) + 0.5
    x0, y0, x1, y1 = box.tolist()
    across, down = ((line - (a + b) / 2) / max(1.0, (b - a) / 2) for a, b in ((x0, x1), (y0, y1)))
    held: torch.Tensor = across[None] ** 2 + down[:, None] ** 2 <= 1
    return held
