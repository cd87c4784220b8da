"""Labels of a data set among those that a model knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


def renumbered(own: Sequence[str], known: Sequence[str]) -> list[int]:
    """The place of each own label name among those that a prompt knows. Raises `DataError` for one that it has not."""
    strange = [name for name in own if name not in known]
    if strange:
        raise DataError(
            f"the data has the label '{strange[0]}', which the prompt does not know; it knows {', '.join(known)}"
        )
    return [list(known).index(name) for name in own]
