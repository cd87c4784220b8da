"""What the report of `transfer` says beside its grid: PRM's ablations, equal work, victims ours was not tuned on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firmground.studies.tables import lined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.studies.runner import Record

METRICS = {"segmentation": "mIoU", "detection": "AP50", "captioning": "CIDEr", "vqa": "accuracy"}
OURS = ("reversal",)
ALL = "all"
LONG = "250 steps"  # a variant: the number of steps of PRM's paper
EQUAL = "34 steps"  # a variant of ours: with the clean image looked at again, as many passes as 40 of the others
SIGNS = "signs"  # a variant: the steps of the other attacks
LARGER = "Adam's steps of 2/255"
LAST = "last layer"
LONG_LAST = f"{LAST}, {LONG}"
TUNED_ON = (
    "segmentation-crops-resnet-1",
    "segmentation-crops-resnet-2",
    "detection-centres-resnet-1",
    "detection-crops-parent-1",
    "captioning-attributes-parent-1",
    "vqa-program-resnet-1",
    "vqa-program-parent-1",
)
"""The victims by which the views of `reversal` were chosen, on scenes of another seed."""


def ablation_table(runs: Sequence[Record]) -> str:
    """PRM as it is, and each of its variants."""
    varied = [record for record in runs if record.case["variant"] and record.case["attack"] == "prm"]
    levels = {record.case["epsilon"] for record in varied}
    whole = [record for level in levels for record in [_case(runs, "prm", "", level)] if record is not None]
    lines = [["PRM", "epsilon", *METRICS, "mean"]]
    lines += [_line(record, record.case["variant"] or "as it is") for record in [*whole, *varied]]
    return lined(lines, left=2)


def why_prm(runs: Sequence[Record]) -> str:
    """Where PRM stands with fewer steps than its paper takes; nothing before it was run with as many."""
    names = ("", SIGNS, LONG, LARGER, LAST, LONG_LAST)
    found = [_case(runs, "prm", name) for name in names]
    if any(record is None for record in found):
        return ""
    means = dict(zip(names, (f"{100 * mean_of(record):.1f}" for record in found if record is not None), strict=True))
    return (
        f"\nPRM's paper takes {LONG} of Adam of 0.5/255. As few steps as the others have here are too few of that size "
        f"({means['']}; {means[LONG]} with {LONG}): as many steps of 2/255 come to {means[LARGER]}, signed ones of "
        f"1/255 to {means[SIGNS]}. That it turns all layers away alike is not what holds it back: the last layer alone "
        f"gives {means[LAST]}, and with {LONG} {means[LONG_LAST]}.\n"
    )


def equal_passes(runs: Sequence[Record]) -> str:
    """How ours fares with no more passes than the others; nothing before it was run so."""
    fewer, whole = _case(runs, OURS[0], EQUAL), _case(runs, OURS[0], "")
    if fewer is None or whole is None:
        return ""
    rest = [r for r in runs if not r.case["variant"] and r.case["epsilon"] == 8 and r.case["attack"] not in OURS]
    best = max(rest, key=mean_of, default=whole)
    return (
        f"\n`{OURS[0]}` looks at the clean image again in half of its steps, a sixth more work than the others do. "
        f"With {EQUAL}, as much work as their 40, its mean drop at 8/255 is {100 * mean_of(fewer):.1f} % "
        f"({100 * mean_of(whole):.1f} with 40; `{best.case['attack']}`: {100 * mean_of(best):.1f}).\n"
    )


def untuned_table(plain: Sequence[Record]) -> list[str]:
    """Mean drops on the victims by which ours was not tuned; nothing where there are no others."""
    rows = [(record, _untuned(record)) for record in plain]
    if not any(set(record.results["victims"]) & set(TUNED_ON) for record, _ in rows):
        return []
    ordered = sorted(rows, key=lambda row: (row[0].case["epsilon"], -sum(row[1].values())))
    lines = [["attack", "epsilon", *METRICS, "mean"]]
    for record, own in ordered:
        cells = [f"{100 * own[task]:.1f}" if task in own else "-" for task in METRICS]
        mean = f"{100 * sum(own.values()) / max(1, len(own)):.1f}"
        lines.append([record.case["attack"], f"{record.case['epsilon']}/255", *cells, mean])
    return ["\n## On victims by which ours was not tuned, mean relative drop, %\n\n", lined(lines, left=2)]


def untuned_ratio(plain: Sequence[Record]) -> float | None:
    """Ours over PRM on those victims, over the epsilons of both; None where one of them was not run."""
    ours, theirs = ({r.case["epsilon"]: r for r in plain if r.case["attack"] == name} for name in (OURS[0], "prm"))
    shared = sorted(set(ours) & set(theirs))
    top, bottom = (sum(sum(_untuned(own[level]).values()) for level in shared) for own in (ours, theirs))
    return round(top / bottom, 4) if bottom > 0 else None


def _untuned(record: Record) -> dict[str, float]:
    """By task, the mean drop over the victims by which ours was not tuned."""
    found: dict[str, list[float]] = {}
    for name, own in record.results["victims"].items():
        if name not in TUNED_ON:
            found.setdefault(own["task"], []).append(float(own["drop"]["value"]))
    return {task: sum(values) / len(values) for task, values in found.items()}


def mean_of(record: Record) -> float:
    """The mean over the tasks that there are."""
    own = [float(groups[ALL]["value"]) for groups in record.results["means"].values() if ALL in groups]
    return sum(own) / max(1, len(own))


def _case(runs: Sequence[Record], attack: str, variant: str, level: Any = 8) -> Record | None:
    wanted = (attack, variant, level)
    return next((r for r in runs if (r.case["attack"], r.case["variant"], r.case["epsilon"]) == wanted), None)


def _line(record: Record, title: str) -> list[str]:
    """A case's mean drops, without intervals."""
    own = [record.results["means"].get(task, {}).get(ALL) for task in METRICS]
    cells = [f"{100 * one['value']:.1f}" if one else "-" for one in own]
    return [title, f"{record.case['epsilon']}/255", *cells, f"{100 * mean_of(record):.1f}"]
