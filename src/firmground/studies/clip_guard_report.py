"""What the study `clip_guard` says: every guard before every victim, and what it says of clean images and encoders."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from firmground.errors import DataError
from firmground.studies.charts import Chart
from firmground.studies.tables import Column, Report, Row, grouped, markdown_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.studies.runner import Record

HEADLINE = "mahalanobis"
TOOK = 0.8  # of the ASR: below it there is no backdoor to guard against, unless it was given up to pass the guard
KNOWING, STRONGER = "knowing", "stronger"  # roles of victims whose attacker knows that hidden states are watched
ROLES = ("design", "held", "fresh", KNOWING, STRONGER, "control")
GOAL = 0.95  # of the AUROC
ADAPTED = (KNOWING, STRONGER)
UNSEEN = ROLES[1:3]  # roles of victims on which the headline's form was not chosen
COLUMNS = (
    Column(key="auroc", title="AUROC", kind="mean", digits=3),
    Column(key="caught", title="triggered images flagged, share", kind="mean", digits=3),
    Column(key="false", title="clean images flagged, share", kind="mean", digits=3),
    Column(key="asr", title="ASR without the guard, share", kind="mean", digits=3),
)


def report_guard(records: Sequence[Record]) -> Report:
    """Every guard's rows; the numbers are the headline's, over all victims and over those that are fresh."""
    done = [record for record in records if record.error is None and record.study == "clip_guard"]
    rows = [_row(record, name, found) for record in done for name, found in record.results["guards"].items()]
    rows.sort(key=lambda row: (ROLES.index(row["role"]), row["base"], row["attack"], row["trigger"]))
    victims = [row for row in rows if row["role"] != "control"]
    took = [row for row in victims if row["asr"] >= TOOK or row["role"] in ADAPTED]
    own = [row for row in took if row["guard"] == HEADLINE]
    counted = [row for row in own if row["role"] not in ADAPTED]
    adapted = [row for row in own if row["role"] in ADAPTED]
    if not counted:
        raise DataError("there is no finished case yet; run the study further")
    by = ("base", "attack", "trigger", "role", "guard")
    text = [
        "# Guards in front of poisoned dual encoders\n\n",
        *(_sentence(names[0], names[1], group) for names, group in grouped(took, ("guard", "role")).items()),
        _weak([row for row in victims if row not in took]),
        "\n",
        markdown_table(victims, by=by, columns=COLUMNS),
    ]
    controls = [row for row in rows if row["role"] == "control"]
    if controls:
        text += ["\n## Clean encoders under a trigger\n\n", markdown_table(controls, by=by, columns=COLUMNS)]
    changed = [
        {"guard": name, "world": record.results["world"], "clean images": shift, "false": share}
        for record in done
        for name, found in record.results["guards"].items()
        for shift, share in found.get("shifted", {}).items()
    ]
    if changed:
        flagged = (Column(key="false", title="flagged, share", kind="mean", digits=3),)
        ordered = sorted(changed, key=lambda row: (row["guard"], row["world"]))
        table = markdown_table(ordered, by=("guard", "world", "clean images"), columns=flagged)
        text += ["\n## Clean images that were changed\n\n", table]
    dots = {names[0]: [row["auroc"] for row in group] for names, group in grouped(took, ("guard",)).items()}
    chart = Chart(name="auroc", title="AUROC on every victim", axis="AUROC", dots=dots)
    return Report(markdown="".join(text), summary=_summary(counted, adapted), charts=(chart,))


def _row(record: Record, guard: str, found: dict[str, Any]) -> Row:
    attack = "implanted" if record.case.get("implanted") else "poisoned pairs"
    attack += " with covers" * (record.case["role"] in ADAPTED)
    control = record.case["role"] == "control"
    shares = {share: found[share]["value"] for share in ("caught", "false")}
    known = {"attack": "none" if control else attack, "guard": guard, "asr": record.results["asr"]}
    return {**record.case, **known, **shares, "auroc": found["auroc"]}


def _sentence(guard: str, role: str, rows: Sequence[Row]) -> str:
    worst = min(rows, key=lambda row: float(row["auroc"]))
    where, good = f"{worst['trigger']}, {worst['base']}", sum(row["auroc"] >= GOAL for row in rows)
    return (
        f"- {guard}, {len(rows)} {role} victims: mean AUROC {fmean(row['auroc'] for row in rows):.3f}, "
        f"{good} of them at {GOAL} or more, at worst {worst['auroc']:.3f} ({where}); "
        f"{fmean(row['caught'] for row in rows):.3f} of triggered images flagged\n"
    )


def _weak(rows: Sequence[Row]) -> str:
    """Which victims do not count."""
    names = sorted({f"{row['trigger']} on {row['base']} (ASR {row['asr']:.2f})" for row in rows})
    return f"- in the table, in no mean, for the backdoor did not take: {', '.join(names)}\n" if names else ""


def _summary(rows: Sequence[Row], adapted: Sequence[Row]) -> dict[str, float | int]:
    aurocs = [row["auroc"] for row in rows]
    found: dict[str, float | int] = {"auroc": fmean(aurocs), "auroc_min": min(aurocs), "victims": len(aurocs)}
    for name, roles in (("unseen", UNSEEN), ("fresh", ("fresh",)), *((role, (role,)) for role in ADAPTED)):
        some = [row["auroc"] for row in (*rows, *adapted) if row["role"] in roles]
        if some:
            found |= {f"auroc_{name}": fmean(some), f"auroc_{name}_min": min(some), f"victims_{name}": len(some)}
    for role in ADAPTED:
        reached = [row["asr"] for row in adapted if row["role"] == role]
        if reached:
            found[f"asr_{role}"] = fmean(reached)
    return found
