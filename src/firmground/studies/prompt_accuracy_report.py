"""What the study `prompt_accuracy` says: CA of every cell, and what resizing and augmentation change, by pairs.

A pair are two prompts of one seed, which differ in nothing else: same images, same split, same number of epochs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmground.errors import DataError
from firmground.intervals import mean
from firmground.studies.charts import Chart
from firmground.studies.tables import Column, Report, Row, grouped, markdown_table, tidy
from firmground.types import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.studies.runner import Record

NONE, PROBE = "no prompt", "linear probe"
DEEP, RESIZED = "deep tokens", "resized padding"
IMAGES = {"efficientnet": 600, "clip": 1200, "vit": 1200}  # of a provider
EPOCHS = {"efficientnet": 6, "clip": 8, "vit": 8}
RESIZING, AUGMENTING = "trainable resize", "TrivialAugment"
COLUMNS = (
    Column(key="ca", title="CA, %", kind="mean"),
    Column(key="low", title="from", kind="mean"),
    Column(key="high", title="to", kind="mean"),
    Column(key="learning_seconds", title="seconds of learning", kind="mean", digits=0),
)
PAIRED = (
    Column(key="plain", title="CA without, %", kind="mean"),
    Column(key="ca", title="CA with, %", kind="mean"),
    Column(key="gained", title="points gained", kind="mean"),
)


def report_accuracy(records: Sequence[Record]) -> Report:
    """CA of every cell with its interval, pairs, and bars for each base and world."""
    rows = [_whole(row) for row in tidy(records)]
    if not rows:
        raise DataError("there is no finished case yet; run the study further")
    order = {NONE: 0, PROBE: 2}
    rows.sort(key=lambda r: (r["base"], r["world"], order.get(r["form"], 1), r["form"], r["mapping"], r["images"]))
    text = (
        "# Visual prompts: clean accuracy\n\nTest images are the same in all rows of a world and a base. From and to "
        "are Wilson's interval over them; where there are several seeds, n, all are means. Images are a provider's. "
        "Seconds are of the clock, on a machine with other work.\n\n"
    )
    cells = ("base", "world", "form", "mapping", "augmentation", "images", "epochs")
    parts = [text, markdown_table(rows, by=cells, columns=COLUMNS)]
    found = pairs(rows)
    if found:
        parts.append(
            "\n## What resizing and augmentation change\n\nPrompts with a fully connected mapping, with and without; "
            "n pairs of the same seed.\n\n"
        )
        parts.append(markdown_table(found, by=("change", "base", "world", "form", "images", "epochs"), columns=PAIRED))
    return Report(markdown="".join(parts), summary=_summary(rows) | _gains(found), charts=_charts(rows))


def pairs(rows: Sequence[Row]) -> list[Row]:
    """Rows with resizing or augmentation, each with the CA of its fellow without, and what it gained in points."""

    def key(row: Row, form: str) -> tuple[object, ...]:
        return (form, *(row[name] for name in ("base", "world", "mapping", "images", "epochs", "seed")))

    plain = {key(row, row["form"]): row["ca"] for row in rows if row["augmentation"] == "none"}
    found = []
    for row in rows:
        resized = row["form"] == RESIZED
        if resized == (row["augmentation"] != "none") or row["mapping"] != "fully-connected":
            continue
        fellow = plain.get(key(row, "padding" if resized else row["form"]))
        if fellow is not None:
            change = RESIZING if resized else AUGMENTING
            found.append(row | {"change": change, "plain": fellow, "gained": row["ca"] - fellow})
    return sorted(found, key=lambda row: (row["change"], row["base"], row["world"], row["images"], row["epochs"]))


def label(row: Row) -> str:
    """How a row is named in a chart."""
    if row["form"] in (NONE, PROBE):
        return str(row["form"])
    return ", ".join(str(row[name]) for name in ("form", "mapping", "augmentation") if row[name] != "none")


def _whole(row: Row) -> Row:
    """Shares in per cent, and the images and epochs that a row does not name."""
    shares = {"ca": "accuracy/value", "low": "accuracy/low", "high": "accuracy/high"}
    effort = {"images": IMAGES[row["base"]], "epochs": EPOCHS[row["base"]]}
    return effort | row | {name: 100 * row[key] for name, key in shares.items()} | {"scarce": "images" in row}


def _charts(rows: Sequence[Row]) -> tuple[Chart, ...]:
    shown = [row for row in rows if not row["seed"] and not row["scarce"]]
    return tuple(
        Chart(
            name=f"accuracy-{names[0]}-{names[1]}",
            title=f"CA: {names[0]}, {names[1]}",
            axis="CA",
            bars={
                label(row): Interval(**{k: row[f"accuracy/{k}"] for k in ("value", "low", "high", "count")})
                for row in group
            },
        )
        for names, group in grouped(shown, ("base", "world")).items()
    )


def _summary(rows: Sequence[Row]) -> dict[str, float | int]:
    """The best prompt of every base and world, beside the probe and no prompt."""
    found: dict[str, float | int] = {"cells": len(rows)}
    for row in rows:
        if not row["seed"] and not row["scarce"]:
            kind = {NONE: "none", PROBE: "probe"}.get(row["form"], "prompt")
            name = f"{row['base']}_{row['world']}_{kind}"
            found[name] = max(float(found.get(name, 0.0)), row["accuracy/value"])
    return found


def _gains(found: Sequence[Row]) -> dict[str, float | int]:
    """What resizing and augmentation gain in accuracy, in the mean over seeds."""
    gains: dict[str, float | int] = {}
    for (change, *where), group in grouped(found, ("change", "base", "world", "form", "images", "epochs")).items():
        name = {RESIZING: "resize", AUGMENTING: "trivial"}[change]
        form = "" if where[2] in (RESIZED, "padding") else f"_{where[2]}"
        scarce = f"_{where[3]}_images_{where[4]}_epochs" if group[0]["scarce"] else ""
        gains[f"{name}_gain_{where[0]}_{where[1]}{form}{scarce}"] = mean(row["gained"] / 100 for row in group).value
    return gains
