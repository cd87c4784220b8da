"""A small patch of noise: BadNets (Gu et al., 2017, arXiv 1708.06733), as CleanCLIP poisons with it.

Bansal et al., "CleanCLIP", ICCV 2023, arXiv 2303.03323: 16 x 16 pixels of noise at a random place of images of 224.
Departs from its code, where the patch is Gaussian noise around each image's mean, redrawn for every image: here the
pattern is uniform noise, drawn once from `seed`, so that all images carry the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from firmground.attacks.triggers._images import Place, check_place, check_share, checked, side, uniform
from firmground.attacks.triggers.patch import paste

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class BadNet:
    """A square of noise, of `size` times the image's side (or of `pixels`), at a random or fixed place.

    `place` is random, centre, top-left, top-right, bottom-left or bottom-right.
    """

    name: ClassVar[str] = "badnet"

    size: float = 16 / 224
    pixels: int | None = None
    place: Place = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        check_share("a size", self.size)
        check_place(self.place)

    def stamp(self, images: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
        """Images (batch, 3, height, width) in [0, 1] with the patch on them; `rng` draws places that are random."""
        length = side(checked(images), self.size, self.pixels)
        return paste(images, uniform((3, length, length), self.seed, "badnet", images), self.place, rng=rng)
