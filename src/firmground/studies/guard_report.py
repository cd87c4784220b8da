"""What the study `language_guard` says: every cell, the worst of them, and the overhead."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from firmground.errors import DataError
from firmground.intervals import mean
from firmground.studies.charts import Chart
from firmground.studies.tables import Column, Report, Row, markdown_table, tidy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.studies.runner import Record

COLUMNS = (
    Column(key="bare_ca", title="CA bare, %", kind="mean"),
    Column(key="guarded_ca", title="CA guarded, %", kind="mean"),
    Column(key="bare_asr", title="ASR bare, %", kind="mean"),
    Column(key="guarded_asr", title="ASR guarded, %", kind="mean"),
    Column(key="flagged", title="clean texts flagged, %", kind="mean"),
    Column(key="unfounded", title="flagged without a recovered trigger in them, %", kind="mean"),
    Column(key="named_share", title="triggers named, %", kind="mean"),
    Column(key="slower", title="slower, %", kind="mean"),
)


def report_guard(records: Sequence[Record]) -> Report:
    """One row a cell; the summary takes the worst cell, and the median overhead over all cells."""
    rows = [_percent(row) for row in tidy(r for r in records if r.study == "language_guard")]
    if not rows:
        raise DataError("there is no finished cell yet; run the study further")
    worst = {
        "asr_max": max(row["guarded_asr"] for row in rows) / 100,
        "clean_accuracy_drop_max": max(row["bare_ca"] - row["guarded_ca"] for row in rows) / 100,
        "false_flag_rate_max": max(row["flagged"] for row in rows) / 100,
        "overhead": median(row["overhead"] for row in rows),
    }
    extra = {
        "cells": len(rows),
        "asr_bare_min": min(row["bare_asr"] for row in rows) / 100,
        "false_flag_rate_without_natural_triggers_max": max(row["unfounded"] for row in rows) / 100,
        "overhead_max": max(row["overhead"] for row in rows),
    }
    text = [
        "# Guarded prompts on planted encoders\n\n",
        f"{len(rows)} cells. Worst cell: ASR {100 * worst['asr_max']:.2f} %, clean accuracy down by "
        f"{100 * worst['clean_accuracy_drop_max']:.2f} points, {100 * worst['false_flag_rate_max']:.2f} % of clean "
        f"texts flagged. Overhead on clean batches of 32: {100 * worst['overhead']:.1f} % (median).\n\n",
        markdown_table(rows, by=("attack", "task", "tuning"), columns=COLUMNS, total="all"),
    ]
    bars = {
        f"{attack}, {name}": mean(row[f"{name}_asr"] / 100 for row in rows if row["attack"] == attack)
        for attack in dict.fromkeys(row["attack"] for row in rows)
        for name in ("bare", "guarded")
        if sum(row["attack"] == attack for row in rows) > 1
    }
    chart = Chart(name="asr", title="Attack success without and with the guard", axis="ASR, mean of cells", bars=bars)
    return Report(markdown="".join(text), summary={**worst, **extra}, charts=(chart,) if bars else ())


def _percent(row: Row) -> Row:
    return {
        **row,
        "bare_ca": 100 * row["bare/accuracy/value"],
        "guarded_ca": 100 * row["guarded/accuracy/value"],
        "bare_asr": 100 * row["bare/asr/value"],
        "guarded_asr": 100 * row["guarded/asr/value"],
        "flagged": 100 * row["clean_flagged"] / row["clean_texts"],
        "unfounded": 100 * (row["clean_flagged"] - row["clean_natural"]) / row["clean_texts"],
        "named_share": 100 * row["named"],
        "slower": 100 * row["overhead"],
    }
