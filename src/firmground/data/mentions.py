"""Which of some classes a caption names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def mentioned(captions: Sequence[str], names: Sequence[str]) -> tuple[int | None, ...]:
    """For each caption the number of the one class that it names; None where it names none, or several.

    A name within a longer one does not count.

    >>> mentioned(["A T-shirt, folded", "a shirt and a bag", "shirts"], ["shirt", "t-shirt", "bag"])
    (1, None, None)
    """
    order = sorted(range(len(names)), key=lambda i: -len(names[i]))
    parts = "|".join(f"({re.escape(names[i])})" for i in order)
    word = re.compile(rf"(?<!\w)(?:{parts})(?!\w)", re.IGNORECASE)
    found = ({order[(match.lastindex or 1) - 1] for match in word.finditer(caption)} for caption in captions)
    return tuple(next(iter(some)) if len(some) == 1 else None for some in found)
