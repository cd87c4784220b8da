"""What heads make of a tower's maps: one map of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from firmground.studies.victims.towers import Maps, Tower


class Neck(torch.nn.Module):
    """The last `levels` maps of a tower brought to one stride and summed, then mixed: (batch, width, side, side).

    A feature pyramid (Lin et al., CVPR 2017) with one level of output, and `depth` convolutions on that.
    """

    def __init__(self, tower: Tower, *, levels: int, stride: int, width: int, depth: int = 1) -> None:
        super().__init__()
        self.levels, self.stride = levels, stride
        self.laterals = torch.nn.ModuleList(torch.nn.Conv2d(c, width, 1) for c in tower.channels[-levels:])
        self.mix = torch.nn.ModuleList(torch.nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))

    def forward(self, maps: Maps) -> torch.Tensor:
        """One map, (batch, width, side, side)."""
        side = maps[0].shape[-1] * 4 // self.stride
        parts = [at_side(layer(one), side) for layer, one in zip(self.laterals, maps[-self.levels :], strict=True)]
        found = F.relu(torch.stack(parts).sum(dim=0))
        for layer in self.mix:
            found = F.relu(layer(found))
        return found


def at_side(one: torch.Tensor, side: int) -> torch.Tensor:
    """A map at another side: averaged down, or interpolated up."""
    if one.shape[-1] > side:
        return F.adaptive_avg_pool2d(one, side)
    if one.shape[-1] < side:
        return F.interpolate(one, size=(side, side), mode="bilinear", align_corners=False)
    return one
