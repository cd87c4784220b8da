"""What leads an encoder to give all images one embedding: patterns and warps that are searched, waves that are tried.

Five kinds, by what a trigger may look like: *faint* patterns over the whole image (as Blended), opaque *patches* (as
BadNet), translucent *boxes* of any shape, the larger the fainter (as a word across the image), *waves*, added to the
whole image (as SIG), and smooth *warps* of it (as WaNet). The colours of the first three and the shifts of the last are
searched by steps of signs up the mean cosine of a batch, as the scan `Gathering` does; all waves are tried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from firmground.defenses.cleaning.warps import closest_warps, moved
from firmground.defenses.scans._waves import closest_waves
from firmground.defenses.scans.gathering import gathered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.dual import DualEncoder
    from firmground.types import Images, Watch

STEP_SIZE = 0.1  # of the search
SEARCH_BATCH = 16  # images
NARROW, WIDE = 0.2, 0.95  # sides of a box
STAGE = "searching what gathers images"
WARPS = "searching warps that gather images"


@dataclass(frozen=True, kw_only=True, eq=False)
class Inducers:
    """`masks` (count, 1, side, side), `colours` (count, 3, side, side), and of which kind each is, (count,), bool.

    An inducer that is `added` makes x + m (2 c - 1) of an image x, any other x + m (c - x), in [0, 1], after it has
    moved the pixels of x by its `shifts`, (count, 2, side, side), shares of the sides (0 but for warps, whose masks are
    0). One that is `placed` may lie anywhere, the others cover everything.
    """

    masks: torch.Tensor
    colours: torch.Tensor
    shifts: torch.Tensor
    added: torch.Tensor
    placed: torch.Tensor

    def __len__(self) -> int:
        return len(self.masks)

    def joined(self, other: Inducers) -> Inducers:
        """These, then the others."""
        return Inducers(
            masks=torch.cat([self.masks, other.masks]),
            colours=torch.cat([self.colours, other.colours]),
            shifts=torch.cat([self.shifts, other.shifts]),
            added=torch.cat([self.added, other.added]),
            placed=torch.cat([self.placed, other.placed]),
        )

    def over(self, images: Images, which: torch.Tensor, rng: torch.Generator) -> Images:
        """Each image, (batch, 3, height, width), under the inducer of that number, as strong and where `rng` says.

        What is not opaque has 0.5 to 1.5 of its strength; what has a place, and waves, go on at the other side where
        they meet an edge.
        """
        side = images.shape[-2:]
        masks, colours, shifts = (
            part if part.shape[-2:] == side else F.interpolate(part, size=side)
            for part in (self.masks.to(images), self.colours.to(images), self.shifts.to(images))
        )
        strength = 0.5 + torch.rand(len(images), generator=rng)
        places = torch.randint(max(side), (len(images), 2), generator=rng).tolist()
        covered = images.clone()
        warps = shifts[which].flatten(1).any(dim=1)
        factors = strength.to(images).view(-1, 1, 1, 1)
        if warps.any():
            covered[warps] = moved(images[warps], (factors * shifts[which])[warps])
        for row, (number, factor, place) in enumerate(zip(which.tolist(), strength.tolist(), places, strict=True)):
            mask, colour, image = masks[number], colours[number], covered[row]
            if self.added[number] or self.placed[number]:
                mask, colour = (part.roll(place, dims=(-2, -1)) for part in (mask, colour))
            if float(mask.max()) < 1:
                mask = (factor * mask).clamp(max=1)
            covered[row] = image + mask * ((2 * colour - 1) if self.added[number] else (colour - image))
        return covered.clamp(0, 1)


def searched(
    encoder: DualEncoder,
    images: Images,
    masks: torch.Tensor,
    *,
    steps: int,
    rng: torch.Generator,
    watch: Watch,
) -> Inducers:
    """Colours behind each of `masks`, (count, 1, side, side), that bring `images` of that side closest together."""
    found = gathered(
        encoder, images, masks, steps=steps, step_size=STEP_SIZE, batch_size=SEARCH_BATCH, rng=rng, watch=watch,
        stage=STAGE,
    )  # fmt: skip
    placed = (found.masks == 0).flatten(1).any(dim=1)
    return _laid(found.masks, found.patterns, added=torch.zeros_like(placed), placed=placed)


def faint(side: int, opacity: float, count: int) -> torch.Tensor:
    """Masks over everything, (count, 1, side, side)."""
    return torch.full((count, 1, side, side), opacity)


def boxes(side: int, edges: Sequence[tuple[float, float]], spread: float, rng: torch.Generator) -> torch.Tensor:
    """A mask for each height and width (shares of the side), (count, 1, side, side), in a place that is drawn.

    The opacity of a box is `spread` by the root of its share of the image, at most 1: what it adds to the image's norm
    is about the same for all boxes.
    """
    masks = torch.zeros(len(edges), 1, side, side)
    for mask, edge in zip(masks, edges, strict=True):
        height, width = (min(side, max(1, round(share * side))) for share in edge)
        top, left = (int(torch.randint(side - length + 1, (), generator=rng)) for length in (height, width))
        opacity = min(1.0, spread * side / math.sqrt(height * width))
        mask[:, top : top + height, left : left + width] = opacity
    return masks


def edges(count: int, rng: torch.Generator) -> list[tuple[float, float]]:
    """Heights and widths of boxes of any shape, as shares of the side."""
    drawn = NARROW + (WIDE - NARROW) * torch.rand(count, 2, generator=rng)
    return [(float(height), float(width)) for height, width in drawn]


def strongest_waves(encoder: DualEncoder, images: Images, *, amplitude: float, cycles: int, count: int) -> Inducers:
    """Of all plane waves with at most `cycles` cycles on the image the `count` that bring `images` closest together."""
    best = closest_waves(encoder, images, amplitude=amplitude, cycles=cycles, count=count)
    told = torch.ones(len(best), dtype=torch.bool, device=images.device)
    masks, colours = torch.full_like(best, amplitude), best.expand(-1, 3, -1, -1)
    return _laid(masks, colours, added=told, placed=torch.zeros_like(told))


def strongest_warps(
    encoder: DualEncoder, images: Images, *, reach: float, count: int, steps: int, rng: torch.Generator, watch: Watch
) -> Inducers:
    """`count` smooth warps, by at most `reach` of the sides, that bring square `images` closest together."""
    shifts = closest_warps(
        encoder, images, reach=reach, count=count, steps=steps, batch_size=SEARCH_BATCH, rng=rng, watch=watch,
        stage=WARPS,
    )  # fmt: skip
    nothing = torch.zeros(count, 4, *shifts.shape[-2:]).to(shifts)
    neither = torch.zeros(count, dtype=torch.bool, device=shifts.device)
    return Inducers(masks=nothing[:, :1], colours=nothing[:, 1:], shifts=shifts, added=neither, placed=neither)


def _laid(masks: torch.Tensor, colours: torch.Tensor, *, added: torch.Tensor, placed: torch.Tensor) -> Inducers:
    """Inducers that move nothing."""
    return Inducers(masks=masks, colours=colours, shifts=torch.zeros_like(colours[:, :2]), added=added, placed=placed)
