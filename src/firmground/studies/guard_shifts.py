"""Clean images as they may come some day: darker, saved again, cut; a guard of backdoors should let them pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from firmground.data.encoding import through_jpeg
from firmground.rng import stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.types import Images


def _contrast(images: Images, share: float) -> Images:
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    return (middle + share * (images - middle)).clamp(0, 1)


def _cropped(images: Images, pixels: int) -> Images:
    """Without so many pixels of every side, and enlarged again."""
    inner = images[..., pixels:-pixels, pixels:-pixels]
    return F.interpolate(inner, size=images.shape[-2:], mode="bilinear", align_corners=False)


def _noisy(images: Images, deviation: float) -> Images:
    noise = torch.randn(images.shape, generator=stream(0, "noise of a camera")).to(images)
    return (images + deviation * noise).clamp(0, 1)


SHIFTS: dict[str, Callable[[Images], Images]] = {
    "as they are": lambda images: images,
    "darker (x 0.8)": lambda images: 0.8 * images,
    "brighter (x 1.2)": lambda images: (1.2 * images).clamp(0, 1),
    "contrast x 0.7": lambda images: _contrast(images, 0.7),
    "contrast x 1.3": lambda images: _contrast(images, 1.3),
    "JPEG, quality 75": lambda images: torch.stack([through_jpeg(image, 75) for image in images]),
    "cropped by a pixel": lambda images: _cropped(images, 1),
    "cropped by two pixels": lambda images: _cropped(images, 2),
    "noise of 0.02": lambda images: _noisy(images, 0.02),
}
