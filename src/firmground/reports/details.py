"""What made a report, folded away at its end: settings, the run, versions, data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from firmground.reports.record import Record

Details: TypeAlias = "tuple[tuple[str, Mapping[str, Any]], ...]"


def details(own: Iterable[tuple[str, Mapping[str, Any]]], record: Record | None) -> Details:
    """The report's own, then what the record says of the run; those that are empty are left out."""
    told = list(own)
    if record is not None:
        times = {"started": record.started, "finished": record.finished, "device": record.device}
        run = {"command": record.verb, "platform": record.platform, **record.arguments, **times}
        told += [("Run", run), ("Versions", record.versions), ("Data, sha256", record.data)]
    return tuple((title, values) for title, values in told if values)


def numbered(lines: Iterable[str]) -> dict[str, str]:
    """Lines as values, by their numbers."""
    return {str(number): line for number, line in enumerate(lines, start=1)}
