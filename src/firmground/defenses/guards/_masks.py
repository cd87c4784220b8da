"""Grey squares that cover an image part by part, so that a patch of no more than the overlap is under one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firmground.types import Images

GREY = 0.5


def squares(side: int, count: int, size: float) -> list[tuple[int, int, int, int]]:
    """`count` by `count` squares of `size` times the side, evenly placed: (top, bottom, left, right)."""
    edge = max(1, round(size * side))
    starts = [round(number * (side - edge) / max(1, count - 1)) for number in range(count)]
    return [(top, top + edge, left, left + edge) for top in starts for left in starts]


def cover(images: Images, square: tuple[int, int, int, int]) -> Images:
    """Images with one square grey."""
    top, bottom, left, right = square
    found = images.clone()
    found[..., top:bottom, left:right] = GREY
    return found


def covered(images: Images, found: list[tuple[int, int, int, int]]) -> list[Images]:
    """The images under each square in turn."""
    return [cover(images, square) for square in found]
