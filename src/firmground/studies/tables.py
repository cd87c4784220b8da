"""From records to what people read: tidy rows, a Markdown table with intervals, plots, and a summary."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from firmground.errors import DataError, OutputError
from firmground.intervals import mean, rate
from firmground.types import Interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from firmground.studies.charts import Chart
    from firmground.studies.runner import Record, Study

Row = dict[str, Any]

FEWEST = 4  # values, below which Student's interval is wider than any reader needs


@dataclass(frozen=True, kw_only=True)
class Column:
    """One measured column: the mean or the rate of `key` over a group's rows; rows without the key do not count."""

    key: str
    title: str
    kind: Literal["rate", "mean"] = "rate"
    digits: int = 1

    def measure(self, rows: Sequence[Row]) -> Interval | None:
        """The interval over those rows; None where none has a value."""
        values = [row[self.key] for row in rows if row.get(self.key) is not None]
        if not values:
            return None
        return rate(values) if self.kind == "rate" else mean(values)

    def text(self, measured: Interval | None) -> str:
        """`97.5 (91.3-99.3)`; a rate in per cent. A mean of fewer than `FEWEST` values goes without its interval."""
        if measured is None:
            return "-"
        scale = 100 if self.kind == "rate" else 1
        value, low, high = (f"{scale * x:.{self.digits}f}" for x in (measured.value, measured.low, measured.high))
        known = self.kind == "rate" or measured.count >= FEWEST
        return f"{value} ({low} to {high})" if known else value


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a study says: Markdown, numbers for `summary.json` (rates as fractions) with words on them, and charts."""

    markdown: str
    summary: Mapping[str, float | int | str]
    charts: tuple[Chart, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tabulated:
    """A study's report and the files it was written to."""

    report: Report
    files: tuple[Path, ...] = field(default=())


def tidy(records: Iterable[Record]) -> list[Row]:
    """One flat row a good record: its settings, its results (nested names joined by `/`) and its seconds."""
    return [
        {**_flat(record.case), **_flat(record.results), "case_seconds": record.seconds}
        for record in records
        if record.error is None
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Row:
    row: Row = {}
    for name, value in values.items():
        row.update(_flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value})
    return row


def grouped(rows: Iterable[Row], by: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the values of the keys `by`, in order of first appearance."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row.get(key, "")) for key in by), []).append(row)
    return groups


def markdown_table(rows: Sequence[Row], *, by: Sequence[str], columns: Sequence[Column], total: str = "") -> str:
    """A Markdown table: one line a group with the number of rows, and a last line over all where `total` names it."""
    lines = [[*by, "n", *(column.title for column in columns)]]
    for names, group in grouped(rows, by).items():
        lines.append([*names, str(len(group)), *_cells(group, columns)])
    if total and rows and by:
        lines.append([f"**{total}**", *("" for _ in by[1:]), str(len(rows)), *_cells(rows, columns)])
    return lined(lines, left=len(by))


def lined(lines: Sequence[Sequence[str]], *, left: int) -> str:
    """Lines of cells as a Markdown table, the first line its head; columns after the first `left` to the right."""
    rule = ["---"] * left + ["---:"] * (len(lines[0]) - left)
    ruled = [lines[0], rule, *lines[1:]]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in ruled)


def _cells(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    return [column.text(column.measure(rows)) for column in columns]


def tabulate(
    place: str | os.PathLike[str], *, into: str | os.PathLike[str] | None = None, study: Study | None = None
) -> Tabulated:
    """Makes the report of the study whose records lie in `place` and writes it to the folder `into`.

    `into` defaults to `place` where that is a folder; records at a URL need it. It gets `table.md`, `summary.json`,
    and every chart as SVG and PNG. `study` defaults to the one that `study.json` names.
    """
    from firmground.studies import find_study
    from firmground.studies.runner import read_records
    from firmground.studies.store import STUDY_FILE, Store

    found = study or find_study(str(Store(place).read(STUDY_FILE).get("name")))
    target = Path(into if into is not None else place)
    if into is None and "://" in os.fspath(place):
        raise OutputError(f"{os.fspath(place)} is no folder; name a folder for its table")
    records = read_records(place, version=found.version)
    if not any(record.error is None for record in records):
        raise DataError(
            f"{os.fspath(place)} holds no finished case of {found.name}; run: firmground study {found.name}"
        )
    report = found.report([*records, *_beside(place, found)])
    return Tabulated(report=report, files=write_report(report, target))


def _beside(place: str | os.PathLike[str], study: Study) -> list[Record]:
    """Records of the studies that this one is compared with, from folders of their names beside this one's."""
    from firmground.studies.runner import read_records

    above = os.fspath(place).rstrip("/").rpartition("/")[0] or "."
    return [record for name in study.beside for record in read_records(f"{above}/{name}")]


def write_report(report: Report, folder: Path) -> tuple[Path, ...]:
    """Writes the report's files into `folder`, each whole or not at all."""
    from firmground.studies.charts import draw

    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "table.md": report.markdown.encode(),
        "summary.json": (json.dumps(dict(report.summary), indent=2) + "\n").encode(),
    }
    for chart in report.charts:
        contents |= {f"{chart.name}.{form}": draw(chart, form) for form in ("svg", "png")}
    for name, content in contents.items():
        part = folder / f".{name}.{os.getpid()}.part"
        try:
            part.write_bytes(content)
            part.replace(folder / name)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"cannot write {folder / name}: {error}; choose another place") from error
    return tuple(folder / name for name in contents)
