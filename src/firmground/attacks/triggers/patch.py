"""A patch of any pattern, pasted at a place that is fixed or drawn for each image.

The ground of BadNet and of the striped patch; with a learned pattern it is the trigger of optimised attacks, such as
BadCLIP (Liang et al., CVPR 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from firmground.attacks.triggers._images import Place, check_place, check_share, checked
from firmground.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class Patch:
    """Pastes `pattern`, a tensor (3, height, width) in [0, 1]; gradients reach the images and the pattern."""

    pattern: torch.Tensor
    place: Place = "random"
    opacity: float = 1.0

    def __post_init__(self) -> None:
        if self.pattern.ndim != 3 or self.pattern.shape[0] != 3:
            raise DataError(f"expected a pattern of shape (3, height, width), got {tuple(self.pattern.shape)}")
        check_place(self.place)
        check_share("an opacity", self.opacity)

    def stamp(self, images: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
        """Images (batch, 3, height, width) in [0, 1] with the patch on them; `rng` draws places that are random."""
        return paste(checked(images), self.pattern.to(images), self.place, opacity=self.opacity, rng=rng)


def paste(
    images: torch.Tensor, pattern: torch.Tensor, place: Place, *, rng: torch.Generator, opacity: float = 1.0
) -> torch.Tensor:
    """Puts a pattern (3, height, width) on each image, wholly inside of it; raises `DataError` if it does not fit."""
    (batch, _, height, width), (tall, wide) = images.shape, pattern.shape[1:]
    if tall > height or wide > width:
        raise DataError(f"expected images of at least {tall} x {wide} pixels for this patch, got {height} x {width}")
    top = _starts(place, batch, height - tall, "bottom", "top", rng).to(images.device)
    left = _starts(place, batch, width - wide, "right", "left", rng).to(images.device)
    number = torch.arange(batch, device=images.device)[:, None, None]
    rows = top[:, None, None] + torch.arange(tall, device=images.device)[:, None]
    columns = left[:, None, None] + torch.arange(wide, device=images.device)
    stamped = images.permute(0, 2, 3, 1).contiguous()
    under, over = stamped[number, rows, columns], pattern.permute(1, 2, 0)
    mixed = (1 - opacity) * under + opacity * over
    return stamped.index_put((number, rows, columns), mixed.clamp(0, 1)).permute(0, 3, 1, 2).contiguous()


def _starts(place: str, batch: int, room: int, far: str, near: str, rng: torch.Generator) -> torch.Tensor:
    if place == "random":
        return torch.randint(room + 1, (batch,), generator=rng, device=rng.device)
    return torch.full((batch,), room if far in place else 0 if near in place else room // 2)
