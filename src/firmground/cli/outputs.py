"""The report and the record that a command writes beside its result: their options, a check beforehand, the writing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

if TYPE_CHECKING:
    from firmground.reports.html import Page
    from firmground.reports.record import Record

HtmlReport = Annotated[Path | None, typer.Option(help="Write an HTML report.")]
RecordFile = Annotated[Path | None, typer.Option(help="Write the record for 'firmground rerun'.")]
PromptHtmlReport = Annotated[Path | None, typer.Option(help="Of a visual prompt: write an HTML report.")]
PromptRecordFile = Annotated[
    Path | None, typer.Option(help="Of a visual prompt: write the record for 'firmground rerun'.")
]


class Run(Protocol):
    """What came of a command."""

    @property
    def record(self) -> Record: ...

    def page(self) -> Page:
        """The HTML report."""
        ...


def check_files(*paths: Path | None) -> None:
    """Raises `OutputError` at once if one of these files, where it is wanted, could not be written later."""
    from firmground.reports.writing import check_file

    for path in paths:
        if path is not None:
            check_file(path)


def write_files(run: Run, *, report: Path | None, record: Path | None) -> None:
    """Writes the report and the record of a run, where they are wanted."""
    from firmground.reports.html import html
    from firmground.reports.writing import write_atomically

    if report is not None:
        write_atomically(report, html(run.page()))
    if record is not None:
        run.record.write(record)
