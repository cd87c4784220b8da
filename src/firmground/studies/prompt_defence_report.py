"""What the study `prompt_defence` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmground.studies.tables import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.studies.runner import Record


def report_defence(records: Sequence[Record]) -> Report:
    """How many prompts were judged."""
    return Report(markdown="", summary={"prompts": len(records)})
