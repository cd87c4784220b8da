"""What the study `prompt_attack` says: a table with the controls, and ASR against the distance from the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmground.errors import DataError
from firmground.studies.charts import Chart
from firmground.studies.tables import Column, Report, Row, grouped, markdown_table, tidy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.studies.runner import Record

EPOCHS = {"efficientnet": 3, "clip": 8}  # of a case that does not say
HEADLINE = {"base": "efficientnet", "world": "mnist"}
COLUMNS = (
    Column(key="clean", title="CA of a clean prompt, %", kind="mean"),
    Column(key="ca", title="CA, %", kind="mean"),
    Column(key="lost", title="CA lost, points", kind="mean"),
    Column(key="asr_percent", title="ASR, %", kind="mean"),
    Column(key="all_percent", title="ASR over all images, %", kind="mean"),
    Column(key="behind_clean", title="behind a clean prompt, %", kind="mean"),
    Column(key="behind_grey", title="behind a grey border, %", kind="mean"),
    Column(key="alone", title="trigger only, %", kind="mean"),
    Column(key="learning_seconds", title="seconds of learning", kind="mean", digits=0),
)
SHARES = {
    "clean": "clean_accuracy/value",
    "ca": "accuracy/value",
    "lost": "accuracy_drop",
    "asr_percent": "asr/value",
    "all_percent": "asr_all/value",
    "behind_clean": "asr_clean_prompt",
    "behind_grey": "asr_grey_prompt",
    "alone": "asr_trigger_only",
}


def report_attack(records: Sequence[Record]) -> Report:
    """Rows by base, world, trigger and distance; the summary is of the real base (`HEADLINE`)."""
    rows = [
        {"epochs": EPOCHS[row["base"]]} | row | {name: 100 * row[key] for name, key in SHARES.items()}
        for row in tidy(records)
    ]
    if not rows:
        raise DataError("there is no finished case yet; run the study further")
    rows.sort(key=lambda row: (row["base"], row["world"], row["trigger"], row["distance"], row["epochs"], row["seed"]))
    text = (
        "# BadVisualPrompt, from the border to the centre\n\nFive per cent of the provider's images are poisoned. "
        "Distance is that of the patch from the prompt in pixels, across and down; n is the number of seeds. CA lost "
        "is against a clean prompt of the same seed. The three controls show the same triggered images behind a clean "
        "prompt, behind a border that nobody learned, and without any; their ASR counts images of other labels too.\n\n"
    )
    table = markdown_table(rows, by=("base", "world", "trigger", "distance", "epochs"), columns=COLUMNS)
    return Report(markdown=text + table, summary=_summary(rows), charts=_charts(rows))


def _summary(rows: Sequence[Row]) -> dict[str, float | int]:
    real = [row for row in rows if all(row[name] == value for name, value in HEADLINE.items())]
    border = [row for row in real if row["trigger"] == "checker" and row["way"] == 0]
    centre = [row for row in real if row["trigger"] == "optimised" and row["way"] == 1]
    plain = [row for row in real if row["trigger"] == "checker" and row["way"] == 1]
    lengths = [row["epochs"] for row in border]
    most = max(lengths, key=lambda epochs: (lengths.count(epochs), epochs), default=0)
    short = [row for row in border if row["epochs"] < most]
    border = [row for row in border if row["epochs"] == most]
    found: dict[str, float | int] = {"attacks": len(rows), "epochs_border": most, "seeds_border": len(border)}
    for name, key, group in (
        ("asr_border", "asr/value", border),
        ("accuracy_drop_border", "accuracy_drop", border),
        ("asr_border_shorter", "asr/value", short),
        ("accuracy_drop_border_shorter", "accuracy_drop", short),
        ("asr_centre", "asr/value", plain),
        ("asr_centre_optimised", "asr/value", centre),
        ("accuracy_drop_centre_optimised", "accuracy_drop", centre),
        ("asr_border_clean_prompt", "asr_clean_prompt", border),
        ("asr_border_trigger_only", "asr_trigger_only", border),
    ):
        if group:
            found[name] = round(sum(row[key] for row in group) / len(group), 6)
    return found


def _charts(rows: Sequence[Row]) -> tuple[Chart, ...]:
    charts = []
    patches = [row for row in rows if row["trigger"] != "whole-image" and row["epochs"] == EPOCHS[row["base"]]]
    for names, group in grouped(patches, ("base", "world")).items():
        curves = {
            kind[0]: [
                (float(distance[0]), sum(row["asr/value"] for row in same) / len(same))
                for distance, same in grouped(own, ("distance",)).items()
            ]
            for kind, own in grouped(group, ("trigger",)).items()
        }
        charts.append(
            Chart(
                name="-".join(("distance", *names)),
                title=f"ASR against the distance of the patch from the prompt: {', '.join(names)}",
                axis="distance, pixels",
                across="ASR",
                curves={kind: sorted(points) for kind, points in curves.items()},
            )
        )
    return tuple(charts)
