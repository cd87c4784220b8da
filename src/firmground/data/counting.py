"""Counts in words, with the right number."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def several(count: int, what: str) -> str:
    """How many of something there are, named in the singular.

    >>> several(1, "image"), several(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def counted_lines(counted: Mapping[str, int], what: str) -> tuple[str, ...]:
    """One line for everything that was counted and is there, `what` in the singular.

    >>> counted_lines({"is missing": 1, "is empty": 0, "is cut": 2}, "row")
    ('1 row: is missing', '2 rows: is cut')
    """
    return tuple(f"{several(count, what)}: {line}" for line, count in counted.items() if count)
