"""Structured triggers, which survive cleaning by augmentation: stripes, triangles and text.

Singh et al., "Perturb and Recover" (PAR), 2024, arXiv 2412.00727: a striped patch in place of BadNet's noise, and
stripes, a grid of triangles and a red word blended over the whole image. Sizes there are for images of 224 and scale
with the side here. Departs from its code: the stripes are drawn once from `seed`, not for each image; their colours are
0 and 1 in each channel, where the code has -1 and 1 and clips; opacities are our choice where the code has one
default for all; the word is set in a built-in face of 5 x 7 pixels and keeps its place, which the code draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from firmground.attacks.triggers._face import FACE, HIGH, WIDE, lettered
from firmground.attacks.triggers._images import Place, blend, check_place, check_share, checked, side, signs
from firmground.attacks.triggers.patch import paste
from firmground.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Stripes:
    """A square patch of vertical stripes, one pixel wide, each of a colour of fully on and fully off channels."""

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
        pattern = signs((3, 1, length), self.seed, "stripes", images).expand(3, length, length)
        return paste(images, pattern, self.place, rng=rng)


@dataclass(frozen=True, kw_only=True)
class BlendedStripes:
    """Vertical stripes, `width` pixels wide, over the whole image with `opacity`."""

    opacity: float = 0.1
    width: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_share("an opacity", self.opacity)
        if self.width < 1:
            raise DataError(f"expected stripes of at least one pixel, got a width of {self.width}")

    def stamp(self, images: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
        """Images (batch, 3, height, width) in [0, 1] under the stripes; nothing is drawn from `rng`."""
        count = -(-checked(images).shape[-1] // self.width)
        colours = signs((3, 1, count), self.seed, "blended stripes", images)
        return blend(images, colours.repeat_interleave(self.width, dim=2)[..., : images.shape[-1]], self.opacity)


@dataclass(frozen=True, kw_only=True)
class Triangles:
    """A grid of square cells, each split into a dark and a light triangle, over the whole image with `opacity`.

    A cell's side is `size` times the image's.
    """

    opacity: float = 0.2
    size: float = 14 / 224
    dark: float = 0.4
    light: float = 0.8

    def __post_init__(self) -> None:
        check_share("an opacity", self.opacity)
        check_share("a size", self.size)

    def stamp(self, images: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
        """Images (batch, 3, height, width) in [0, 1] under the grid; nothing is drawn from `rng`."""
        height, width = checked(images).shape[2:]
        cell = max(2, round(self.size * min(height, width)))
        down, right = (torch.arange(n, device=images.device) % cell for n in (height, width))
        pattern = torch.where(down[:, None] >= right, self.dark, self.light)
        return blend(images, pattern.to(images), self.opacity)


@dataclass(frozen=True, kw_only=True)
class TextOverlay:
    """A word in red across the middle of the image, with `opacity`, `width` times as wide as the image.

    Below about 96 pixels choose a short word: a letter needs 6 pixels to be read.
    """

    text: str = "watermarked"
    opacity: float = 0.5
    width: float = 0.9

    def __post_init__(self) -> None:
        unknown = [letter for letter in self.text.upper() if letter not in FACE]
        if unknown or not self.text.strip():
            raise DataError(f"expected a text of letters, digits and spaces, got {self.text!r}")
        check_share("an opacity", self.opacity)
        check_share("a width", self.width)

    def stamp(self, images: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
        """Images (batch, 3, height, width) in [0, 1] with the word on them; nothing is drawn from `rng`."""
        height, width = checked(images).shape[2:]
        wide = max(1, round(self.width * width))
        tall = min(height, max(1, round(wide * HIGH / (WIDE * len(self.text)))))
        ink = F.interpolate(lettered(self.text)[None, None], size=(tall, wide), mode="area")[0, 0].to(images)
        top, left = (height - tall) // 2, (width - wide) // 2
        cover = F.pad(ink, (left, width - wide - left, top, height - tall - top))
        red = torch.tensor([1.0, 0.0, 0.0]).to(images)[:, None, None]
        return blend(images, red, self.opacity * cover)
