"""A table of pairs, as `poison` and `sift` write it and other commands read it."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from firmground.data.pairs import Pairs


def pair_table(rows: Iterable[tuple[int, str, str]], pairs: Pairs) -> str:
    """CSV of (row of `pairs`, place of its image, caption), with the name of the row's class where the set has any."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    labels = None if pairs.labels is None else [pairs.label_names[label] for label in pairs.labels]
    writer.writerow(("image", "caption") if labels is None else ("image", "caption", "label"))
    for row, place, caption in rows:
        writer.writerow((place, caption) if labels is None else (place, caption, labels[row]))
    return text.getvalue()
