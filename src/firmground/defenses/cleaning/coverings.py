"""Things that may lie over an image without changing what it shows: generic patterns, on a part or on the whole.

Cutout (DeVries and Taylor, 2017, arXiv 1708.04552), CutMix (Yun et al., ICCV 2019) and mixup (Zhang et al., ICLR 2018)
are among them; the rest are patterns of random colours, scales and directions. Nothing here is any attack's trigger,
but families of patterns are shared with some; `without` leaves families out, so that a study can measure on triggers of
a family that no covering came from.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from firmground.defenses.cleaning.warps import moved, smooth
from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.types import Images

COVERINGS = ("flat", "noise", "stripes", "checks", "image", "glyphs", "waves", "warp")
COLOURS = 6  # of a pattern of stripes or checks


def cover(images: Images, *, rng: torch.Generator, chance: float = 1.0, without: Sequence[str] = ()) -> Images:
    """Copies of images, (batch, 3, height, width) in [0, 1], each covered with `chance` in a way of its own.

    A covering is drawn from the families of `COVERINGS`; patterns lie on a box of 8 to 35 % of the sides, or on all of
    the image at an opacity of 10 to 40 %. Raises `DataError` for an unknown family, or where none is left.
    """
    check_families(without)
    families = [name for name in COVERINGS if name not in without]
    drawn = torch.randint(len(families), (len(images),), generator=rng)
    drawn[torch.rand(len(images), generator=rng) >= chance] = -1
    covered = images.detach().clone()
    for number, family in enumerate(families):
        rows = (drawn == number).nonzero()[:, 0].to(images.device)
        if len(rows):
            covered[rows] = _covered(covered[rows], images, family, rng).clamp(0, 1)
    return covered


def check_families(without: Sequence[str]) -> None:
    """Raises `DataError` for a family that does not exist, or where all are left out."""
    unknown = sorted(set(without) - set(COVERINGS))
    if unknown or set(COVERINGS) <= set(without):
        raise DataError(f"expected to leave out some of {', '.join(COVERINGS)}, got {', '.join(without)}")


def _covered(images: Images, all_images: Images, family: str, rng: torch.Generator) -> Images:
    if family == "waves":
        strength = 0.1 + 0.3 * _draw(images, 3, rng)
        return images + strength * (2 * math.pi * _slope(images, 1, 12, rng)).sin()
    if family == "warp":
        return _warped(images, rng)
    return _laid(images, _pattern(images, all_images, family, rng), rng, glyphs=family == "glyphs")


def _pattern(images: Images, all_images: Images, family: str, rng: torch.Generator) -> torch.Tensor:
    if family in ("flat", "glyphs"):
        return _draw(images, 3, rng).expand_as(images)
    if family == "image":
        others = torch.randint(len(all_images), (len(images),), generator=rng).to(images.device)
        return all_images.detach()[others]
    if family == "noise":
        cell = 2 ** int(torch.randint(3, (), generator=rng))
        small = [max(1, side // cell) for side in images.shape[-2:]]
        return F.interpolate(torch.rand(len(images), 3, *small, generator=rng).to(images), size=images.shape[-2:])
    steps = _slope(images, 4, 30, rng).floor()
    if family == "checks":
        steps = steps + _slope(images, 4, 30, rng).floor()
    table = torch.rand(len(images), 3, COLOURS, generator=rng).to(images)
    places = steps.remainder(COLOURS).long().expand_as(images).flatten(2)
    return table.gather(2, places).view_as(images)


def _laid(images: Images, pattern: torch.Tensor, rng: torch.Generator, *, glyphs: bool) -> Images:
    """The pattern over half of the images on a box, over the others on the whole; glyphs show it through a stencil."""
    boxed = _draw(images, 1, rng) < 0.5
    opacity = torch.where(boxed, 0.5 + 0.5 * _draw(images, 1, rng), 0.1 + 0.3 * _draw(images, 1, rng))
    where = torch.where(boxed, _boxes(images, rng), torch.ones_like(images[:, :1]))
    if glyphs:
        bits = (torch.rand(len(images), 1, 9, 17, generator=rng) < 0.5).to(images)
        where = where * F.interpolate(bits, size=images.shape[-2:])
    return images + opacity * where * (pattern - images)


def _boxes(images: Images, rng: torch.Generator) -> torch.Tensor:
    """A box on each image as ones among zeros, (batch, 1, height, width)."""
    masks = []
    for length in images.shape[-2:]:
        side = (0.08 + 0.27 * _draw(images, 1, rng)) * length
        start = _draw(images, 1, rng) * (length - side)
        place = torch.arange(length, device=images.device).view(1, 1, 1, -1)
        masks.append(((place >= start.floor()) & (place < start.floor() + side.ceil())).to(images))
    return masks[0].transpose(2, 3) * masks[1]


def _slope(images: Images, fewest: float, most: float, rng: torch.Generator) -> torch.Tensor:
    """A plane that rises by `fewest` to `most` over a side in a drawn direction, (batch, 1, height, width)."""
    height, width = images.shape[-2:]
    down = torch.arange(height, device=images.device).view(-1, 1) / height
    across = torch.arange(width, device=images.device) / width
    turn, count = 2 * math.pi * _draw(images, 1, rng), fewest + (most - fewest) * _draw(images, 1, rng)
    return count * (turn.cos() * across + turn.sin() * down) + _draw(images, 1, rng)


def _warped(images: Images, rng: torch.Generator) -> Images:
    """Each image under a smooth field of shifts, of 1 to 6 % of its sides at most."""
    coarse = 2 * torch.rand(len(images), 2, 4, 4, generator=rng).to(images) - 1
    strength = 0.01 + 0.05 * _draw(images, 1, rng)
    return moved(images, strength * smooth(coarse, (images.shape[-2], images.shape[-1])))


def _draw(images: Images, channels: int, rng: torch.Generator) -> torch.Tensor:
    return torch.rand(len(images), channels, 1, 1, generator=rng).to(images)
