"""What the study `hardening` says: robust against clean accuracy for each answer, and what of the loss it buys back.

Of an answer at one epsilon: the loss is what the attack takes from the bare encoder, and the share bought back is what
of it the answer saves from the attacker who knows it. Intervals are Wilson's for accuracies; those of shares and of
drops come from a bootstrap over the test images, which all answers have in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy

from firmground.errors import DataError
from firmground.intervals import wilson
from firmground.rng import stream
from firmground.studies.charts import Chart
from firmground.studies.tables import Column, Report, Row, lined, markdown_table, tidy
from firmground.tasks.resampling import image_weights, percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.studies.runner import Record
    from firmground.types import Interval

AIM = "fare"
AT = 4  # levels of 255
GUARD_COLUMNS = (
    Column(key="flagged_clean", title="clean images flagged, %", kind="mean"),
    Column(key="flagged_oblivious", title="flagged, oblivious, %", kind="mean"),
    Column(key="flagged_adaptive", title="flagged, adaptive, %", kind="mean"),
    Column(key="auroc_oblivious", title="AUROC, oblivious", kind="mean", digits=3),
    Column(key="auroc_adaptive", title="AUROC, adaptive", kind="mean", digits=3),
)
HEAD = (
    "epsilon", "answer", "clean accuracy, %", "oblivious attacker, %", "adaptive attacker, %", "loss bought back, %",
    "clean accuracy lost, points",
)  # fmt: skip
TITLE = (
    "# Hardening: what each answer buys back, and what it costs\n\n"
    "Zero-shot accuracy of the embedded clean CLIP on {count} scenes of ten shapes; epsilon in levels of 255, images "
    "rounded to 8 bits. The oblivious attacker has the bare encoder; the adaptive one the answer and its weights. The "
    "share bought back is of what the same attack takes from the bare encoder, and counts the adaptive attacker. "
    "Around JPEG and bit depth gradients are passed as if they were not there: an attacker with a better stand-in may "
    "do more harm than this one.\n\n"
)


def report_hardening(records: Sequence[Record]) -> Report:
    """One line an answer and epsilon, then what the guard sees, then the summary at 4/255."""
    rows = [row for row in tidy(r for r in records if r.study == "hardening") if "adaptive" in row]
    bare = {row["epsilon"]: row for row in rows if row["answer"] == "none"}
    rows = [row for row in rows if row["epsilon"] in bare]
    if not rows:
        raise DataError("the bare encoder has not been attacked yet; run the study further")
    rows.sort(key=lambda row: (row["epsilon"], row["answer"] != "none", -sum(row["adaptive"])))
    lines = [HEAD, *(_line(row, bare[row["epsilon"]]) for row in rows)]
    seen = [_percent(row) for row in rows if "auroc_adaptive" in row]
    text = [TITLE.format(count=len(rows[0]["clean"])), lined(lines, left=2)]
    if seen:
        text += ["\n## What the guard by unstable patch tokens sees\n\n"]
        text += [markdown_table(seen, by=("epsilon",), columns=GUARD_COLUMNS)]
    return Report(markdown="".join(text), summary=_summary(rows, bare), charts=_charts(rows))


def bought_back(row: Row, bare: Row) -> Interval | None:
    """Of what the adaptive attack takes from the bare encoder, the share that the answer saves; None where nothing is.

    The bare encoder keeps its clean accuracy and its accuracy under attack, the answer its own under attack.
    """
    clean, fallen, risen = (_floats(values) for values in (bare["clean"], bare["adaptive"], row["adaptive"]))
    if clean.mean() <= fallen.mean():
        return None
    weights = image_weights(len(clean), stream(0, "hardening"))
    sums = [weights @ values for values in (clean, fallen, risen)]
    with numpy.errstate(divide="ignore", invalid="ignore"):
        shares = (sums[2] - sums[1]) / (sums[0] - sums[1])
    return percentile(float((risen.mean() - fallen.mean()) / (clean.mean() - fallen.mean())), shares, len(clean))


def clean_drop(row: Row, bare: Row) -> Interval:
    """Clean accuracy that the answer costs, in points."""
    lost = 100 * (_floats(bare["clean"]) - _floats(row["clean"]))
    weights = image_weights(len(lost), stream(0, "hardening"))
    return percentile(float(lost.mean()), weights @ lost / len(lost), len(lost))


def _line(row: Row, bare: Row) -> list[str]:
    cells = [f"{row['epsilon']}/255", row["answer"]]
    cells += [_interval(_rate(row[name]), 100) for name in ("clean", "oblivious", "adaptive")]
    share = bought_back(row, bare)
    if row["answer"] == "none":
        cells += ["", ""]
    else:
        cells += ["-" if share is None else _interval(share, 100), _interval(clean_drop(row, bare), 1)]
    return cells


def _summary(rows: Sequence[Row], bare: dict[int, Row]) -> dict[str, float | int]:
    found: dict[str, float | int] = {"answers": len({row["answer"] for row in rows}), "cases": len(rows)}
    if AT in bare:
        found |= {"bare_clean": _rate(bare[AT]["clean"]).value, "bare_robust": _rate(bare[AT]["adaptive"]).value}
    for row in rows:
        share = bought_back(row, bare[row["epsilon"]])
        if row["epsilon"] != AT or row["answer"] == "none" or share is None:
            continue
        drop = clean_drop(row, bare[AT])
        if row["answer"] == AIM:
            found |= {"loss_bought_back": share.value, "clean_drop": drop.value}
            found |= {"loss_bought_back_low": share.low, "clean_drop_high": drop.high}
        else:
            found |= {f"{row['answer']}/loss_bought_back": share.value, f"{row['answer']}/clean_drop": drop.value}
    return found


def _charts(rows: Sequence[Row]) -> tuple[Chart, ...]:
    bars = {row["answer"]: _rate(row["adaptive"]) for row in rows if row["epsilon"] == AT}
    if not bars:
        return ()
    title = f"Zero-shot accuracy under the adaptive attacker, {AT}/255"
    return (Chart(name="adaptive", title=title, axis="accuracy", bars=bars),)


def _percent(row: Row) -> Row:
    shares = {"flagged_clean": "false_flags/value"} | {n: n for n in ("flagged_oblivious", "flagged_adaptive")}
    return row | {name: 100 * row[key] for name, key in shares.items()}


def _floats(values: Sequence[int]) -> numpy.ndarray:
    return numpy.asarray(values, dtype=float)


def _rate(values: Sequence[int]) -> Interval:
    return wilson(sum(values), len(values))


def _interval(found: Interval, scale: float) -> str:
    value, low, high = (f"{scale * part:.1f}" for part in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"
