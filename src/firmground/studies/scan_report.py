"""What the studies `language_scan` and `language_mining` say: thresholds, accuracy with intervals, rows by attack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firmground.errors import DataError
from firmground.intervals import rate
from firmground.studies.calibration import Performance, Thresholds, calibrate, judge
from firmground.studies.charts import Chart
from firmground.studies.planting import TOOK
from firmground.studies.tables import Column, Report, Row, markdown_table, tidy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.studies.runner import Record
    from firmground.types import Interval

FALSE_ALARMS = 0.02  # allowed to all scores together
COLUMNS = (
    Column(key="right", title="right, %", kind="rate"),
    Column(key="shipped_right", title="right at built-in thresholds, %", kind="rate"),
    Column(key="named", title="triggers named, share", kind="mean", digits=2),
    Column(key="scan_seconds", title="seconds", kind="mean"),
    Column(key="peak_mb", title="peak MiB", kind="mean", digits=0),
)


def report_scan(records: Sequence[Record]) -> Report:
    """Thresholds from the clean calibration encoders; everything else on the report split."""
    own = [r for r in records if r.study == "language_scan"]
    thresholds, rows = _judged(own)
    mining = _published([r for r in records if r.study == "language_mining"])
    judged = _reported(rows)
    main, failed = [row for row in judged if row["took"]], [row for row in judged if not row["took"]]
    performance, with_failed = _performance(thresholds, main), _performance(thresholds, judged)
    text = [
        "# Scans of language encoders they have not seen\n",
        _headline(rows, thresholds, performance),
        _failed(failed, with_failed),
        _sentence("PV mining as published, same encoders: accuracy", mining.get("accuracy")),
        "\n## By attack and kind of trigger (report split)\n",
        markdown_table([_named(r) for r in main], by=("attack", "trigger"), columns=COLUMNS, total="all"),
        "\n## Adaptive attacks (report split, not in the headline)\n",
        markdown_table([r for r in rows if r["adaptation"]], by=("adaptation", "trigger"), columns=COLUMNS),
        "\n## By family (report split)\n",
        markdown_table(main, by=("family", "planted"), columns=COLUMNS),
    ]
    summary: dict[str, float | int] = {
        "models": len(rows),
        "detection_accuracy": performance.accuracy.value,
        "detection_accuracy_low": performance.accuracy.low,
        "false_alarm_rate": performance.false_alarm_rate.value,
        "false_alarm_rate_high": performance.false_alarm_rate.high,
        "implants_not_taken": len(failed),
        "detection_accuracy_with_those": with_failed.accuracy.value,
        "scan_seconds": sum(row["scan_seconds"] for row in rows) / len(rows),
    }
    if "accuracy" in mining:
        summary["published_mining_accuracy"] = mining["accuracy"].value
        summary["published_mining_seconds"] = mining["seconds"].value
    return Report(markdown="\n".join(part for part in text if part), summary=summary, charts=_charts(thresholds, rows))


def _failed(rows: Sequence[Row], with_them: Performance) -> str:
    """The implants that did not take, which are no backdoors: their triggers do not lead to their vectors."""
    if not rows:
        return ""
    each = "".join(
        f"- {row['attack']}, {row['trigger']}, in {row['base']}: cosine {row['implant/took']:.2f} to its vectors, "
        f"{'flagged' if row['excess'] > 0 else 'not flagged'}\n"
        for row in rows
    )
    return f"\nImplants that did not take ({TOOK} is asked for), and do not count above:\n\n{each}" + _sentence(
        "Accuracy if they counted as planted", with_them.accuracy
    )


def report_mining(records: Sequence[Record]) -> Report:
    """The published method's own verdicts on the report split."""
    rows = [_with_verdict(row) for row in tidy(records)]
    main = [row for row in _reported(rows) if row["took"]]
    columns = [column for column in COLUMNS if column.key != "right"]
    found = _published(records)
    table = markdown_table([_named(r) for r in main], by=("attack", "trigger"), columns=columns, total="all")
    summary = {f"published_mining_{name}": interval.value for name, interval in found.items()}
    return Report(markdown=f"# PV mining as published\n\n{table}", summary={"models": len(rows), **summary})


def _judged(records: Sequence[Record]) -> tuple[Thresholds, list[Row]]:
    rows = sorted(map(_with_verdict, tidy(records)), key=lambda row: (row["attack"], row["trigger"], row["family"]))
    clean = [row["scores"] for row in rows if row["split"] == "calibration" and not row["planted"]]
    if not clean:
        raise DataError("there is no record of a clean calibration encoder yet; run the study further")
    thresholds = calibrate(clean, false_alarm_rate=FALSE_ALARMS)
    for row in rows:
        row["excess"] = thresholds.excess(row["scores"])
        row["right"] = (row["excess"] > 0) == row["planted"]
    return thresholds, rows


def _reported(rows: Sequence[Row]) -> list[Row]:
    """Those that set no threshold and are no adaptive attacks."""
    return [row for row in rows if row["split"] == "report" and not row["adaptation"]]


def _with_verdict(row: Row) -> Row:
    scores = {name.removeprefix("scores/"): value for name, value in row.items() if name.startswith("scores/")}
    took = not row["planted"] or row.get("implant/took", 1.0) >= TOOK
    return {**row, "scores": scores, "took": took, "shipped_right": row["flagged"] == row["planted"]}


def _published(records: Sequence[Record]) -> dict[str, Interval]:
    from firmground.intervals import mean

    rows = [row for row in _reported([_with_verdict(row) for row in tidy(records)]) if row["took"]]
    if not rows:
        return {}
    found = {"accuracy": rate(row["flagged"] == row["planted"] for row in rows)}
    if clean := [row for row in rows if not row["planted"]]:
        found["false_alarm_rate"] = rate(row["flagged"] for row in clean)
    return found | {"seconds": mean(row["scan_seconds"] for row in rows)}


def _performance(thresholds: Thresholds, rows: Sequence[Row]) -> Performance:
    clean = [row["scores"] for row in rows if not row["planted"]]
    planted = [row["scores"] for row in rows if row["planted"]]
    if not clean or not planted:
        raise DataError(
            f"a report needs clean and planted encoders of the report split, got {len(clean)} and {len(planted)}; "
            "run the study further"
        )
    return judge(thresholds, clean, planted)


def _headline(rows: Sequence[Row], thresholds: Thresholds, found: Performance) -> str:
    values = ", ".join(f"{name} {value:.3g}" for name, value in thresholds.values.items())
    planted = sum(row["planted"] for row in rows)
    return (
        f"{len(rows)} encoders, {planted} planted. Thresholds from {thresholds.count} clean encoders: {values}.\n\n"
        + _sentence("Accuracy", found.accuracy)
        + _sentence("Detected", found.detection_rate)
        + _sentence("False alarms", found.false_alarm_rate)
        + f"- Area under the ROC curve: {found.auc:.4f}\n"
    )


def _sentence(words: str, interval: Interval | None) -> str:
    if interval is None:
        return ""
    value, low, high = (100 * x for x in (interval.value, interval.low, interval.high))
    return f"- {words}: {value:.1f} % (95 % interval {low:.1f} to {high:.1f}, n = {interval.count})\n"


def _named(row: Row) -> dict[str, Any]:
    return {**row, "attack": row["attack"] or "none", "trigger": row["trigger"] or "none"}


def _charts(thresholds: Thresholds, rows: Sequence[Row]) -> tuple[Chart, ...]:
    report = [row for row in rows if row["split"] == "report"]
    dots: dict[str, list[float]] = {}
    bars: dict[str, list[bool]] = {}
    for row in report:
        label = row["adaptation"] or row["attack"] or "clean"
        bars.setdefault(label, []).append(row["right"])
        dots.setdefault(label, []).append(row["excess"])
    axis = "score above its threshold"
    return (
        Chart(
            name="accuracy",
            title="Encoders judged rightly",
            axis="share, with 95 % interval",
            bars={k: rate(v) for k, v in bars.items()},
        ),
        Chart(name="scores", title="Scores of encoders not seen before", axis=axis, dots=dots, line=0.0),
    )
