"""What the study `clip_cleaning` says: victims before and after, at the step size that a user would choose.

A user sees clean images only. So for each victim, cleaner and number of clean pairs the step size is the largest at
which accuracy on the validation images stays within `KEPT` of the suspect's own (the one with the best accuracy, where
none does). ASR has no part in it. The summary speaks of the largest number of pairs, and, with `few`, of the smallest.
"Best" is the one cleaner whose worst ASR over all triggers is the lowest. Beside every victim stands what its trigger
does to a clean child of the same base: that much of an ASR is no backdoor. Figures are those of 8,000 test and as many
validation images where these were asked, else of 1,000 and 600; what is lost is told on the same images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmground.errors import DataError
from firmground.studies.charts import Chart
from firmground.studies.clip_hard_cases import CLEANED_CONTROL, CONTAMINATED, CONTROL, HANDFUL, UNIMODAL
from firmground.studies.tables import Column, Report, Row, grouped, markdown_table, tidy
from firmground.types import Interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from firmground.studies.runner import Record

KEPT = 0.02
LARGE = "large/"  # before the names of what was measured on the larger test set
SHIPPED = "disarm, as shipped"  # with the family of coverings that resembles the trigger
GROUP = ("base", "trigger", "pairs", "cleaner")
NOISE = ("badnet", "blended")
BEFORE = (
    Column(key="ca", title="CA, %", kind="mean"),
    Column(key="below_clean", title="below the clean child, points", kind="mean"),
    Column(key="asr_percent", title="ASR, %", kind="mean"),
    Column(key="asr_all_percent", title="ASR over all images, %", kind="mean"),
    Column(key="control_percent", title="ASR of a clean child, %", kind="mean"),
    Column(key="cleaned_control_percent", title="ASR of a clean child, cleaned by disarm, %", kind="mean"),
    Column(key="victim_seconds", title="seconds of training", kind="mean", digits=0),
)
AFTER = (
    Column(key="size", title="step size", kind="mean", digits=4),
    Column(key="accuracy/count", title="test images", kind="mean", digits=0),
    Column(key="ca", title="CA, %", kind="mean"),
    Column(key="drop_points", title="CA lost, points", kind="mean"),
    Column(key="asr_percent", title="ASR, %", kind="mean"),
    Column(key="clean_seconds", title="seconds", kind="mean", digits=0),
)
REBOUND = (
    Column(key="before_percent", title="ASR before, %", kind="mean"),
    Column(key="again_percent", title="ASR after, %", kind="mean"),
    Column(key="again_ca", title="CA after, %", kind="mean"),
)


def report_cleaning(records: Sequence[Record]) -> Report:
    """Undefended rows, then every cleaner at its chosen step size, then all points of the curves."""
    every = [_percent(row) for row in tidy(r for r in records if r.study == "clip_cleaning")]
    every.sort(key=lambda row: (row["base"], row["trigger"], row["cleaner"], row["step_size"]))
    rows = [row for row in every if not row.get("hardship")]
    controls = {(row["base"], row["trigger"]): row for row in every if row.get("hardship") == CONTROL}
    alike = {row["base"]: row for row in every if row.get("hardship") == CLEANED_CONTROL}
    before = {(row["base"], row["trigger"]): row for row in rows if not row["cleaner"]}
    victims = [_beside_clean(row, before, controls, alike) for row in before.values() if row["trigger"]]
    if not victims:
        raise DataError("there is no finished victim yet; run the study further")
    points = [
        _against_victim(row, before) for row in rows if row["cleaner"] and (row["base"], row["trigger"]) in before
    ]
    picked = [chosen(group) for group in grouped(points, GROUP).values()]
    most = [row for row in picked if row["pairs"] == max(row["pairs"] for row in picked)]
    best = best_cleaner([row for row in most if row["cleaner"] != SHIPPED])
    text = [
        "# Cleaning poisoned dual encoders\n\n",
        f"Step sizes are the largest that keep accuracy on clean validation images within {100 * KEPT:.0f} points of "
        "the suspect's own, or where none does, the one that keeps it best; ASR has no part in the choice. Restore and "
        f"Disarm were never given the family of coverings that resembles the trigger, but for '{SHIPPED}'.\n\n",
        "## Victims as they are\n\n",
        markdown_table(victims, by=("base", "trigger"), columns=BEFORE),
        "\n## After cleaning\n\n",
        markdown_table(picked, by=GROUP, columns=AFTER),
        f"\nLowest worst ASR over the triggers that it was run on, with most pairs: {best}.\n" if best else "",
        _hard_cases(every, controls),
        "\n## All points\n\n",
        markdown_table(points, by=(*GROUP, "step_size"), columns=AFTER[1:]),
    ]
    return Report(markdown="".join(text), summary=_summary(victims, picked, best), charts=_charts(points, most))


def chosen(points: Sequence[Row]) -> Row:
    """The point of one victim's and cleaner's curve that a user would choose."""
    kept = [row for row in points if row["validation/value"] >= row["suspect_validation"] - KEPT]
    if kept:
        return max(kept, key=lambda row: float(row["step_size"]))
    return max(points, key=lambda row: float(row["validation/value"]))


def best_cleaner(picked: Sequence[Row]) -> str:
    """The cleaner that was run on the most victims, of these the one with the lowest worst ASR; empty for none."""
    groups = {names[0]: group for names, group in grouped(picked, ("cleaner",)).items()}
    if not groups:
        return ""
    return min(groups, key=lambda name: (-len(groups[name]), max(row["asr/value"] for row in groups[name])))


def _summary(victims: Sequence[Row], picked: Sequence[Row], best: str) -> dict[str, float | int]:
    noise = [row for row in victims if row["trigger"] in NOISE]
    found: dict[str, float | int] = {"undefended_asr_min": min(row["asr/value"] for row in victims)}
    if noise:
        found["undefended_asr_min_noise"] = min(row["asr/value"] for row in noise)
    amounts = sorted({row["pairs"] for row in picked})
    for amount, ending in zip(amounts[:1] + amounts[-1:], ("_few", ""), strict=False):
        found |= _worst([row for row in picked if row["pairs"] == amount], best, ending)
    below = [row["below_clean"] / 100 for row in victims if "below_clean" in row]
    if below:
        found["undefended_accuracy_drop_max"] = max(below)
    return found | {"victims": len(victims), "points": len(picked), "clean_pairs": max(amounts, default=0)}


def _worst(picked: Sequence[Row], best: str, ending: str) -> dict[str, float | int]:
    """The worst that CleanCLIP and its control leave of noise, and the best cleaner of all, with so many pairs."""
    found: dict[str, float | int] = {}
    for name in ("cleanclip", "contrastive"):
        rows = [row for row in picked if row["cleaner"] == name and row["trigger"] in NOISE]
        if rows:
            found[f"{name}_asr_max_noise{ending}"] = max(row["asr/value"] for row in rows)
            found[f"{name}_accuracy_drop_max{ending}"] = max(row["drop"] for row in rows)
    for name, cleaner in (("best", best), ("shipped", SHIPPED)):
        rows = [row for row in picked if row["cleaner"] == cleaner]
        if rows:
            found[f"{name}_asr_max{ending}"] = max(row["asr/value"] for row in rows)
            found[f"{name}_accuracy_drop_max{ending}"] = max(row["drop"] for row in rows)
            found[f"victims_of_{name}{ending}"] = len(rows)
    return found


def _percent(row: Row) -> Row:
    """The row with the larger test set's figures where it has them, and in per cent; the smaller set's as `few`."""
    few = {f"few_{name}": row.get(f"{name}/value") for name in ("accuracy", "validation")}
    few["before_percent"] = 100 * row.get("asr/value", 0)
    row = row | {key.removeprefix(LARGE): value for key, value in row.items() if key.startswith(LARGE)}
    shares = {
        "ca": "accuracy/value", "asr_percent": "asr/value", "asr_all_percent": "asr_all/value",
        "again_percent": "rebound/asr/value", "again_ca": "rebound/accuracy/value",
    }  # fmt: skip
    return row | few | {name: 100 * row[key] for name, key in shares.items() if key in row} | {"size": row["step_size"]}


def _beside_clean(
    row: Row,
    before: Mapping[tuple[str, str], Row],
    controls: Mapping[tuple[str, str], Row],
    alike: Mapping[str, Row],
) -> Row:
    clean, control = before.get((row["base"], "")), controls.get((row["base"], row["trigger"]))
    found = {} if clean is None else {"below_clean": clean["ca"] - row["ca"]}
    if control is not None:
        found["control_percent"] = control["asr_percent"]
    under = alike.get(row["base"], {}).get(f"under {row['trigger']}/value")
    return row | found | ({} if under is None else {"cleaned_control_percent": 100 * under})


def _hard_cases(every: Sequence[Row], controls: Mapping[tuple[str, str], Row]) -> str:
    """Tables of victims of InfoNCE + SSL, poisoned cleaning sets and rebounds, where there are any."""
    again = [row for row in every if "rebound/asr/value" in row and row.get("hardship") != CONTROL]
    again += [row | {"cleaner": "(none: a clean child)"} for row in controls.values() if "rebound/asr/value" in row]
    text = ""
    for title, hardship in (
        (f"Victims trained with {UNIMODAL}", UNIMODAL),
        (f"A cleaning set with {CONTAMINATED}", CONTAMINATED),
    ):
        rows = [row for row in every if row.get("hardship") == hardship]
        if rows:
            text += f"\n## {title}\n\n"
            text += markdown_table(rows, by=("base", "trigger", "cleaner"), columns=(AFTER[0], AFTER[2], AFTER[4]))
    if again:
        text += f"\n## Poisoned again with {HANDFUL} pairs, after the cleaning\n\n"
        again.sort(key=lambda row: (row["base"], row["trigger"]))
        text += markdown_table(again, by=("base", "trigger", "cleaner"), columns=REBOUND)
    return text


def _against_victim(row: Row, before: Mapping[tuple[str, str], Row]) -> Row:
    victim = before[row["base"], row["trigger"]]
    alike = "{}/value" if f"{LARGE}accuracy/value" in row else "few_{}"
    drop = victim[alike.format("accuracy")] - row["accuracy/value"]
    return row | {"drop": drop, "drop_points": 100 * drop, "suspect_validation": victim[alike.format("validation")]}


def _interval(row: Row, name: str) -> Interval:
    return Interval(**{part: row[f"{name}/{part}"] for part in ("value", "low", "high", "count")})


def _charts(points: Sequence[Row], picked: Sequence[Row]) -> tuple[Chart, ...]:
    charts = []
    for names, group in grouped(points, ("base", "trigger")).items():
        curves = {
            f"{kind[0]}, {kind[1]} pairs": [
                (row["asr/value"], row["accuracy/value"]) for row in sorted(own, key=lambda r: r["step_size"])
            ]
            for kind, own in grouped(group, ("cleaner", "pairs")).items()
        }
        charts.append(
            Chart(
                name="-".join(("curve", *names)),
                title=f"CA against ASR over step sizes: {names[1]}, {names[0]}",
                axis="ASR",
                across="CA",
                curves=curves,
            )
        )
    bars = {
        f"{row['trigger']}, {row['cleaner']} ({row['world']})": _interval(row, "asr")
        for row in picked
        if row["trigger"] in NOISE
    }
    if bars:
        charts.append(Chart(name="asr", title="ASR after cleaning, noise triggers", axis="ASR", bars=bars))
    return tuple(charts)
