"""Victims that segment: where something is, without classes, and what it is, by embeddings of names.

`pixels` classifies every place by its own embedding, aligned with the names' (LSeg, Li et al., ICLR 2022); `masks`
gives each connected part the class of its mean embedding (FC-CLIP, Yu et al., NeurIPS 2023); `crops` that of its crop,
which the tower embeds as pretrained (ZSSeg, Xu et al., ECCV 2022). `Untrained` trains nothing at all (as MaskCLIP, Zhou
et al., ECCV 2022, but by parts).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.nn.functional as F

from firmground.data.annotated_images import BACKGROUND
from firmground.models.dual import unit
from firmground.studies.victims.lessons import BASE
from firmground.studies.victims.necks import Neck, at_side
from firmground.studies.victims.regions import box_of, crops, filled, parts, pooled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from firmground.studies.victims.towers import Maps, Tower
    from firmground.types import Embeddings, Images

Deciding: TypeAlias = Literal["pixels", "masks", "crops"]
SHARPNESS = 20.0  # of the classes' softmax
NEAREST, STRICT = 3, 1.2


class Segmenter(torch.nn.Module):
    """A mask without classes from `levels` maps of the tower at `stride`, and embeddings of places or parts of it."""

    def __init__(self, tower: Tower, *, decide: Deciding, levels: int = 3, stride: int = 4, width: int = 40) -> None:
        super().__init__()
        self.tower, self.decide, self.stride = tower, decide, stride
        self.neck = Neck(tower, levels=levels, stride=stride, width=width)
        self.where = torch.nn.Conv2d(width, stride**2, 1)
        self.what = torch.nn.Conv2d(width, tower.width, 1)
        zeroed(self.what)

    def forward(self, maps: Maps) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of there being something, (batch, 64, 64), and embeddings, (batch, width, side, side)."""
        mixed = self.neck(maps)
        found = F.pixel_shuffle(self.where(mixed), self.stride)[:, 0]
        own = at_side(self.tower.project(maps[-1]), mixed.shape[-1])
        return found, own if self.decide == "crops" else own + self.what(mixed)

    def look(self, images: Images, targets: Mapping[str, torch.Tensor] | None = None) -> Maps:
        """The tower's maps."""
        return self.tower.maps(images)

    def loss(self, maps: Maps, targets: Mapping[str, torch.Tensor], rng: torch.Generator) -> torch.Tensor:
        """Cross-entropies of mask and base classes."""
        masks = targets["masks"].long()
        found, embedding = self(maps)
        total = F.binary_cross_entropy_with_logits(found, (masks > 0).float())
        if self.decide != "crops":
            step = masks.shape[-1] // embedding.shape[-1]
            truth = masks[:, step // 2 :: step, step // 2 :: step]
            places = unit(embedding.permute(0, 2, 3, 1)[truth > 0])
            logits = SHARPNESS * places @ self.tower.classes(BASE).T
            total = total + F.cross_entropy(logits, truth[truth > 0] - 1)
        return total

    @torch.no_grad()
    def segment(self, images: Images, names: Sequence[str]) -> torch.Tensor:
        """The class of each pixel, (batch, height, width) int64; without a background, everything is of a name."""
        wanted, numbers, ground = asked(names)
        found, embedding = self(self.tower.maps(images))
        inside = found > 0 if ground is not None else torch.ones_like(found, dtype=torch.bool)
        texts = self.tower.classes(wanted)
        if self.decide == "pixels":
            return painted(alike(embedding, texts, images.shape[-1]), inside, numbers, ground)
        answer = torch.full(inside.shape, 0 if ground is None else ground)
        for row, mask in enumerate(inside):
            masks = parts(mask)
            if masks:
                kinds = self._embedded(images[row], embedding[row], masks) @ texts.T
                for part, kind in zip(masks, kinds.argmax(dim=1).tolist(), strict=True):
                    answer[row][part] = numbers[kind]
        return answer

    def _embedded(self, image: torch.Tensor, embedding: torch.Tensor, masks: Sequence[torch.Tensor]) -> Embeddings:
        if self.decide == "crops":
            boxes = torch.tensor([box_of(mask) for mask in masks])
            return crops(self.tower, image.expand(len(masks), -1, -1, -1), boxes)
        return pooled(embedding, masks)


class Untrained(torch.nn.Module):
    """Trains nothing: what differs from the image's rim is something, and each connected part of it is one thing.

    How far the places of the two finest maps are from those on the rim is split in two by Otsu's threshold, times
    `STRICT`, and holes are filled: the inside of a plain thing looks as flat as the ground. Crops are classified.
    """

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower

    @torch.no_grad()
    def segment(self, images: Images, names: Sequence[str]) -> torch.Tensor:
        """The class of each pixel, (batch, height, width) int64; without a background, everything is of a name."""
        wanted, numbers, ground = asked(names)
        maps, texts = self.tower.maps(images), self.tower.classes(wanted)
        apart = sum(at_side(from_rim(one)[:, None], images.shape[-1])[:, 0] for one in maps[:2])
        assert isinstance(apart, torch.Tensor)
        answer = torch.full(apart.shape, numbers[0] if ground is None else ground)
        for row, one in enumerate(apart):
            mask = one > STRICT * otsu(one) if ground is not None else torch.ones_like(one, dtype=torch.bool)
            masks = parts(filled(mask))
            if masks:
                boxes = torch.tensor([box_of(part) for part in masks])
                embedded = crops(self.tower, images[row].expand(len(masks), -1, -1, -1), boxes)
                for part, kind in zip(masks, (embedded @ texts.T).argmax(dim=1).tolist(), strict=True):
                    answer[row][part] = numbers[kind]
        return answer


def from_rim(one: torch.Tensor) -> torch.Tensor:
    """The mean distance of each place of a map from the places on its rim that are nearest, (batch, side, side).

    It is in units of its mean over the image.
    """
    inner = torch.zeros(one.shape[-2:], dtype=torch.bool)
    inner[1:-1, 1:-1] = True
    apart = torch.cdist(one.flatten(2).transpose(1, 2), one[:, :, ~inner].transpose(1, 2))
    nearest = apart.topk(NEAREST, largest=False).values.mean(dim=-1).view(-1, *one.shape[-2:])
    return nearest / nearest.mean(dim=(1, 2), keepdim=True).clamp(min=1e-9)


def otsu(values: torch.Tensor) -> float:
    """The threshold that splits values into the two groups whose means are furthest apart, by their sizes."""
    ordered = values.flatten().sort().values
    count, total = torch.arange(1, len(ordered)), ordered.cumsum(0)
    low, high = total[:-1] / count, (total[-1] - total[:-1]) / (len(ordered) - count)
    return float(ordered[int((count * (len(ordered) - count) * (high - low) ** 2).argmax())])


def zeroed(layer: torch.nn.Conv2d) -> None:
    """Makes a layer that is added to the tower's own embedding begin with nothing."""
    for value in layer.parameters():
        torch.nn.init.zeros_(value)


def asked(names: Sequence[str]) -> tuple[list[str], list[int], int | None]:
    """The names that are no background, their places among all, and the background's place if it is there."""
    numbers = [place for place, name in enumerate(names) if name != BACKGROUND]
    ground = names.index(BACKGROUND) if BACKGROUND in names else None
    return [names[place] for place in numbers], numbers, ground


def alike(embedding: torch.Tensor, texts: Embeddings, side: int) -> torch.Tensor:
    """Similarities of places to texts at the images' resolution, (batch, names, side, side)."""
    return at_side(torch.einsum("bdij,nd->bnij", unit(embedding.movedim(1, -1)).movedim(-1, 1), texts), side)


def painted(logits: torch.Tensor, inside: torch.Tensor, numbers: Sequence[int], ground: int | None) -> torch.Tensor:
    """The best name of each pixel that is inside, the background elsewhere."""
    best = torch.tensor(numbers)[logits.argmax(dim=1)]
    return best if ground is None else torch.where(inside, best, ground)
