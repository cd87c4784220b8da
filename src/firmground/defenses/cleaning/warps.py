"""Smooth fields of shifts: images warped by them, and the search for those that bring all images to one place.

A pattern that is laid over an image cannot stand for a warp, which moves what is there. But a smooth field has few
numbers, and `grid_sample` is differentiable, so a field is searched as colours are: by steps of signs up the mean
cosine of batches. On an encoder poisoned with WaNet (Nguyen and Tran, ICLR 2021) fields of 6 % of a side bring images
to a mean cosine of 0.71, on two without that trigger to 0.45 and 0.58; drawn ones to 0.39, 0.27 and 0.39.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from firmground.defenses.scans.gathering import climbed

if TYPE_CHECKING:
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images, Watch

KNOTS = 6  # of a searched field, across and down
STEP_SIZE = 0.2  # of the search, as a share of the reach


def moved(images: Images, shifts: torch.Tensor) -> Images:
    """Images, (batch, 3, height, width), where each pixel comes from `shifts` further right and down.

    Shifts, (batch, 2, height, width), are shares of the width and height. What lies beyond an edge is as the edge.
    """
    still = torch.eye(2, 3, device=images.device, dtype=images.dtype).expand(len(images), 2, 3)
    grid = F.affine_grid(still, list(images.shape), align_corners=False) + 2 * shifts.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def smooth(knots: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Fields through `knots`, (count, 2, rows, columns), at every pixel: (count, 2, *size), within -1 and 1."""
    return F.interpolate(knots, size=size, mode="bicubic", align_corners=True).clamp(-1, 1)


def closest_warps(
    encoder: DualEncoder,
    images: Images,
    *,
    reach: float,
    count: int,
    steps: int,
    batch_size: int,
    rng: torch.Generator,
    watch: Watch,
    stage: str,
) -> torch.Tensor:
    """Shifts of at most `reach` of the sides that bring square `images` closest together, (count, 2, side, side)."""
    side = images.shape[-1]
    knots = (2 * torch.rand(count, 2, KNOTS, KNOTS, generator=rng) - 1).to(images.device)

    def embed(now: torch.Tensor, some: Images) -> Embeddings:
        shifts = reach * smooth(now, (side, side))
        under = moved(some.repeat(count, 1, 1, 1), shifts.repeat_interleave(len(some), dim=0))
        return encoder.embed_images(under).float().view(count, len(some), -1)

    knots = climbed(
        knots, images, embed,
        bounds=(-1, 1), steps=steps, step_size=STEP_SIZE, batch_size=batch_size, rng=rng, watch=watch, stage=stage,
    )  # fmt: skip
    return reach * smooth(knots, (side, side))
