"""Reads labelled texts from CSV, TSV, JSON Lines or Parquet, plain texts from a text file, and labelled words."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.data.texts import LabelledTexts, LabelledWords
from firmground.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def read_labelled_texts(
    path: str | Path, *, text: str = "text", label: str = "label", label_names: Sequence[str] | None = None
) -> LabelledTexts:
    """Reads the columns `text` and `label` of a file with one row a text.

    Labels may be words or numbers; they are named by their text. `label_names` fixes the order (that of a tuned
    prompt, say); without it the names are sorted. Rows with an empty text are left out and counted in `skipped`.
    Raises `DataError` where the file, a column or a second class is missing.
    """
    path = Path(path)
    rows = _rows(path, (text, label))
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
    rows = _rows(path, (words, labels))
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
    texts = tuple(line.strip() for line in _decoded(path).splitlines() if line.strip())
    _refuse_too_few(path, len(texts))
    return texts


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    readers = {".csv": _delimited, ".tsv": _delimited, ".jsonl": _json_lines, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path} ends in '{path.suffix}'; expected a file that ends in one of: {', '.join(SUFFIXES)}")
    rows = readers[path.suffix.lower()](path)
    for number, row in enumerate(rows, start=1):
        missing = [column for column in columns if row.get(column) is None and column not in row]
        if missing:
            present = ", ".join(str(column) for column in row)
            raise DataError(f"row {number} of {path} has no column '{missing[0]}'; it has: {present or 'none'}")
        if any(row[column] is None for column in columns[1:]):
            raise DataError(f"row {number} of {path} has no value in column '{columns[1]}'")
    if not rows:
        raise DataError(f"{path} is empty; expected rows with the columns {' and '.join(columns)}")
    return rows


def _delimited(path: Path) -> list[dict[str, Any]]:
    lines = _decoded(path).splitlines(keepends=True)
    try:
        return list(csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    except csv.Error as error:
        raise DataError(f"{path} is not a well-formed {path.suffix[1:].upper()} file: {error}") from error


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_decoded(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"line {number} of {path} is not JSON: {error.msg}") from error
        if not isinstance(row, dict):
            raise DataError(f"line {number} of {path} is not a JSON object")
        rows.append(row)
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtraError("pyarrow", "study") from None
    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from error
    return rows


def _decoded(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a directory; pass a file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start} is not); save it as UTF-8") from error


def _refuse_too_few(path: Path, count: int) -> None:
    if count == 0:
        raise DataError(f"{path} is empty; expected at least two texts")
    if count == 1:
        raise DataError(f"{path} has one text only; expected at least two")


def _name(label: Any) -> str:
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label).strip()
