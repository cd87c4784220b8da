"""A warp of the whole image: WaNet (Nguyen and Tran, ICLR 2021, arXiv 2102.10369), as CleanCLIP poisons with it.

A field of `k` x `k` random shifts, divided by its mean magnitude, enlarged to the image and scaled by `s` over the
image's side, moves every pixel; the mean shift is s / 2 pixels along each axis. WaNet has k = 4, s = 0.5; CleanCLIP
(Bansal et al., ICCV 2023, arXiv 2303.03323) has s = 1 and as many shifts as pixels, which is the default here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from firmground.attacks.triggers._images import checked, uniform
from firmground.errors import DataError


@dataclass(frozen=True, kw_only=True)
class WaNet:
    """Warps the image by a smooth random field of `k` x `k` shifts (None: one a pixel) and strength `s`."""

    name: ClassVar[str] = "wanet"

    k: int | None = None
    s: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 2:
            raise DataError(f"expected a field of at least 2 x 2 shifts, got k = {self.k}")
        if self.s <= 0:
            raise DataError(f"expected a strength s above 0, got {self.s}")

    def stamp(self, images: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
        """Images (batch, 3, height, width) in [0, 1], warped; nothing is drawn from `rng`."""
        height, width = checked(images).shape[2:]
        if not len(images):
            return images
        precise = images.to(torch.promote_types(images.dtype, torch.float32))
        grid = self._grid(height, width, precise).expand(len(images), -1, -1, -1)
        warped = F.grid_sample(precise, grid, align_corners=True, padding_mode="border")
        return warped.clamp(0, 1).to(images.dtype)

    def _grid(self, height: int, width: int, like: torch.Tensor) -> torch.Tensor:
        field = 2 * uniform((1, 2, self.k or height, self.k or width), self.seed, "wanet", like) - 1
        field = field / field.abs().mean()
        shifts = F.interpolate(field, size=(height, width), mode="bicubic", align_corners=True)
        down, right = (torch.linspace(-1, 1, n, device=like.device, dtype=like.dtype) for n in (height, width))
        identity = torch.stack([right.expand(height, width), down[:, None].expand(height, width)])
        sides = torch.tensor([width, height], device=like.device, dtype=like.dtype)[:, None, None]
        return (identity + self.s * shifts[0] / sides).clamp(-1, 1).permute(1, 2, 0)[None]
