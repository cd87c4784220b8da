"""Rows of CSV, TSV, JSON Lines and Parquet files, with one clear sentence for whatever is wrong with them."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from firmground.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def read_rows(
    path: Path, columns: tuple[str | tuple[str, ...], ...], *, errors: str = "strict"
) -> list[dict[str, Any]]:
    """The rows of a CSV, TSV, JSON Lines or Parquet file, each with all `columns`, the second and later not null.

    The first of them may be several, of which each row has one. With `errors="surrogateescape"` bytes that are not
    UTF-8 come as lone surrogates, for the caller to judge.
    """
    readers = {".csv": _delimited, ".tsv": _delimited, ".jsonl": _json_lines, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path} ends in '{path.suffix}'; expected a file that ends in one of: {', '.join(SUFFIXES)}")
    rows = readers[path.suffix.lower()](path, errors)
    wanted = [(column,) if isinstance(column, str) else column for column in columns]
    for number, row in enumerate(rows, start=1):
        missing = [names for names in wanted if not any(name in row for name in names)]
        if missing:
            present = ", ".join(str(column) for column in row)
            named = "' or '".join(missing[0])
            raise DataError(f"row {number} of {path} has no column '{named}'; it has: {present or 'none'}")
        if any(row[names[0]] is None for names in wanted[1:]):
            raise DataError(f"row {number} of {path} has no value in column '{wanted[1][0]}'")
    if not rows:
        named = " and ".join(" or ".join(names) for names in wanted)
        raise DataError(f"{path} is empty; expected rows with the columns {named}")
    return rows


def _delimited(path: Path, errors: str) -> list[dict[str, Any]]:
    lines = io.StringIO(read_utf8(path, errors), newline="")  # splitlines would also split at U+2028 and its kin
    try:
        return list(csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    except csv.Error as error:
        raise DataError(f"{path} is not a well-formed {path.suffix[1:].upper()} file: {error}") from error


def _json_lines(path: Path, errors: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(read_utf8(path, errors).split("\n"), start=1):
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


def _parquet(path: Path, errors: str) -> list[dict[str, Any]]:
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


def read_utf8(path: Path, errors: str = "strict") -> str:
    """A text file's content; `DataError` where it is missing or not UTF-8 (not even in its first line)."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors=errors)
        text.partition("\n")[0].encode("utf-8")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a directory; pass a file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start} is not); save it as UTF-8") from error
    except UnicodeEncodeError as error:
        raise DataError(f"{path} is not UTF-8 (character {error.start} is not); save it as UTF-8") from error
    return text
