"""What image triggers share: checked images, patterns that depend on a seed alone, and places."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch

from firmground.errors import DataError
from firmground.rng import stream

Place: TypeAlias = Literal["random", "top-left", "top-right", "bottom-left", "bottom-right", "centre"]
PLACES = ("random", "top-left", "top-right", "bottom-left", "bottom-right", "centre")


def checked(images: torch.Tensor) -> torch.Tensor:
    """The images, if they are RGB floats (batch, 3, height, width) in [0, 1]; `DataError` if not."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise DataError(
            f"expected images of shape (batch, 3, height, width), got {tuple(images.shape)}; "
            "convert them to RGB, and add a dimension in front where it is one image"
        )
    if not images.is_floating_point():
        raise DataError(f"expected images as floats in [0, 1], got {images.dtype}; divide 8-bit images by 255")
    if len(images):
        low, high = (float(bound) for bound in images.detach().aminmax())
        if not (low >= 0 and high <= 1):
            raise DataError(
                f"expected images in [0, 1], got values from {low:.2f} to {high:.2f}; "
                "pass them before normalisation: encoders normalise by themselves"
            )
    return images


def uniform(shape: tuple[int, ...], seed: int, purpose: str, like: torch.Tensor) -> torch.Tensor:
    """Numbers in [0, 1) that depend on the seed, the purpose and the shape: the same pattern for every image."""
    return torch.rand(shape, generator=stream(seed, "trigger", purpose)).to(like)


def signs(shape: tuple[int, ...], seed: int, purpose: str, like: torch.Tensor) -> torch.Tensor:
    """The same as fair zeros and ones."""
    return (uniform(shape, seed, purpose, like) >= 0.5).to(like)


def blend(images: torch.Tensor, pattern: torch.Tensor, opacity: float | torch.Tensor) -> torch.Tensor:
    """(1 - opacity) x + opacity pattern; the opacity may differ from pixel to pixel."""
    return (images * (1 - opacity) + pattern * opacity).clamp(0, 1)


def side(images: torch.Tensor, fraction: float, pixels: int | None) -> int:
    """The side of a patch, in pixels: as given, or a fraction of the shorter side of the images, at least one."""
    shorter = min(images.shape[2:])
    length = pixels if pixels is not None else max(1, round(fraction * shorter))
    if not 1 <= length <= shorter:
        raise DataError(f"expected a patch of 1 to {shorter} pixels for images of {shorter}, got {length}")
    return length


def check_place(place: str) -> None:
    """Raises `DataError` for a place that does not exist."""
    if place not in PLACES:
        raise DataError(f"expected a place among {', '.join(PLACES)}, got {place!r}")


def check_share(name: str, value: float) -> None:
    """Raises `DataError` for a share outside (0, 1]."""
    if not 0 < value <= 1:
        raise DataError(f"expected {name} above 0 and at most 1, got {value}")
