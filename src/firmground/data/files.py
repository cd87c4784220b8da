"""Reads labelled texts from CSV, TSV, JSON Lines or Parquet, plain texts from a text file, and labelled words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.data.tables import SUFFIXES, read_rows, read_utf8
from firmground.data.texts import LabelledTexts, LabelledWords
from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SUFFIXES", "read_labelled_texts", "read_labelled_words", "read_texts"]


def read_labelled_texts(
    path: str | Path, *, text: str = "text", label: str = "label", label_names: Sequence[str] | None = None
) -> LabelledTexts:
    """Reads the columns `text` and `label` of a file with one row a text.

    Labels may be words or numbers; they are named by their text. `label_names` fixes the order (that of a tuned
    prompt, say); without it the names are sorted. Rows with an empty text are left out and counted in `skipped`.
    Raises `DataError` where the file, a column or a second class is missing.
    """
    path = Path(path)
    rows = read_rows(path, (text, label))
    kept = [(str(row[text]).strip(), _name(row[label])) for row in rows if str(row[text] or "").strip()]
    _refuse_too_few(path, len(kept))
    found = sorted({name for _, name in kept})
    if len(found) < 2 and label_names is None:
        raise DataError(f"{path} has one class only, '{found[0]}'; a task needs texts of at least two classes")
    names = tuple(label_names) if label_names is not None else tuple(found)
    unknown = [name for name in found if name not in names]
    if unknown:
        raise DataError(f"{path} has the label '{unknown[0]}'; expected one of: {', '.join(names)}")
    index = {name: i for i, name in enumerate(names)}
    return LabelledTexts(
        texts=tuple(body for body, _ in kept),
        labels=tuple(index[name] for _, name in kept),
        label_names=names,
        skipped=len(rows) - len(kept),
    )


def read_labelled_words(path: str | Path, *, words: str = "words", labels: str = "labels") -> LabelledWords:
    """Reads JSON Lines or Parquet rows with a list of words and a list of IOB2 tags, one a word."""
    path = Path(path)
    rows = read_rows(path, (words, labels))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row[words], list) or not isinstance(row[labels], list):
            raise DataError(f"row {number} of {path} needs lists in '{words}' and '{labels}'")
    kept = [row for row in rows if row[words]]
    _refuse_too_few(path, len(kept))
    names = tuple(sorted({str(tag) for row in kept for tag in row[labels]} | {"O"}, key=lambda tag: (tag != "O", tag)))
    return LabelledWords(
        words=tuple(tuple(str(word) for word in row[words]) for row in kept),
        labels=tuple(tuple(names.index(str(tag)) for tag in row[labels]) for row in kept),
        label_names=names,
    )


def read_texts(path: str | Path) -> tuple[str, ...]:
    """Reads a plain text file, one text a line; empty lines are left out. Raises `DataError` below two texts."""
    path = Path(path)
    texts = tuple(line.strip() for line in read_utf8(path).splitlines() if line.strip())
    _refuse_too_few(path, len(texts))
    return texts


def _refuse_too_few(path: Path, count: int) -> None:
    if count == 0:
        raise DataError(f"{path} is empty; expected at least two texts")
    if count == 1:
        raise DataError(f"{path} has one text only; expected at least two")


def _name(label: Any) -> str:
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label).strip()
