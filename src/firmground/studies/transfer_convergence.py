"""Where PRM stands at the number of steps of its paper, and with one optimizer for all losses: paired differences.

Every case of `transfer` shows the same images to the same victims, and its bootstraps draw the same of them. So the
difference of two attacks' mean drops has an interval of its own, narrower than those of the two drops. It is over
images; the victims are these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from firmground.studies.tables import lined
from firmground.studies.transfer_ablations import ALL, LONG, METRICS, OURS
from firmground.studies.victims.catalogue import GROUPS
from firmground.tasks.resampling import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.studies.runner import Record
    from firmground.types import Interval

MOMENTUM = "momentum"  # a variant: the optimizer of `mi`, in steps of 1/255
LONG_MOMENTUM = f"{MOMENTUM}, {LONG}"
TOKENS_ALONE = f"tokens alone, {LONG}"
QUIET = f"tokens alone without noise, {LONG}"
NO_VIEWS = f"without views, {LONG}"
CROPS, WHOLE = "crops", "whole image"
READINGS = (CROPS, WHOLE)
DENSE = ("segmentation", "detection")
LEVEL = 8  # epsilon, of 255
PUBLISHED = ("pgd", "nrd", "dr", "mi", "di", "ilpd", "tgr", *OURS)
ONE_OPTIMIZER = {"pgd": "mi", "nrd": "nrd", "dr": "dr"}  # a loss, and the attack that has it


def reading(victim: str) -> str:
    """What a victim of a dense task classifies: embeddings of crops, or places of the whole image's maps; else ''."""
    task, head = victim.split("-")[:2]
    if task not in DENSE:
        return ""
    return CROPS if head in ("crops", "untrained") else WHOLE


def convergence(runs: Sequence[Record]) -> str:
    """The tables of both comparisons and of what victims read; nothing before PRM was run with its paper's steps."""
    cases = {(r.case["attack"], r.case["variant"]): r for r in runs if r.case["epsilon"] == LEVEL}
    if ("prm", LONG) not in cases or not any((attack, LONG) in cases for attack in PUBLISHED):
        return ""
    text = [
        f"\n## With the {LONG} of PRM's paper, mean relative drop, %\n\n",
        "PRM's paper takes 250 steps, most others 10 to 100. Each attack with its own optimizer and step size, at "
        "equal steps, 8/255. The last columns are PRM's drop less the attack's, in points, with paired intervals.\n\n",
        _compared(cases, [(name, name, variant) for variant in ("", LONG) for name in PUBLISHED], own=True),
        _standing(cases),
    ]
    if ("prm", LONG_MOMENTUM) in cases:
        text += [
            "\n### One optimizer for all losses\n\nPRM, PGD on the embedding, NRD and DR differ in their losses; here "
            "all take the optimizer of `mi` in steps of 1/255.\n\n",
            _compared(cases, _alike(), own=False),
        ]
    if (OURS[0], TOKENS_ALONE) in cases and ("prm", LONG_MOMENTUM) in cases:
        text += [
            f"\n### What `{OURS[0]}` adds to PRM\n\nAll with {LONG} of momentum. Beside PRM's cosines comes, one after "
            "the other: the agreement of standardised tokens, in which a place counts as much as it stands out; noise "
            "on the image at every step; the cosine of the embeddings; views.\n\n",
            _parts(cases),
        ]
    if all(kind in cases["prm", LONG].results.get("replicates", {}) for kind in READINGS):
        text += [
            f"\n### What a victim reads, with {LONG}\n\nDrops of segmentation and detection by whether the victim "
            "classifies embeddings of crops, or places of the maps of the whole image, which is what PRM changes.\n\n",
            _by_reading(cases),
        ]
    text += [
        f"\n### What the attacker knows of the victim, with {LONG}\n\nMean drop over the four tasks.\n\n",
        _by_group(cases),
    ]
    return "".join(text)


def long_ranks(runs: Sequence[Record]) -> dict[str, float | int]:
    """PRM's place by task among attacks of the literature with as many steps as its paper takes."""
    own = {r.case["attack"]: r for r in runs if r.case["epsilon"] == LEVEL and r.case["variant"] == LONG}
    if "prm" not in own or len(own) == 1:
        return {}
    found: dict[str, float | int] = {}
    for task in METRICS:
        drops = {name: r.results["means"][task][ALL]["value"] for name, r in own.items() if name not in OURS}
        found[f"prm_rank_{task}_{LONG.replace(' ', '_')}"] = 1 + sum(drop > drops["prm"] for drop in drops.values())
    return found


def lead(one: Record, other: Record, kinds: Sequence[str]) -> Interval | None:
    """How much more one attack takes than another, mean over tasks or readings; None where the pairs are not kept."""
    pairs = [(r.results.get("replicates", {}), r.results["victims"]) for r in (one, other)]
    if any(kind not in replicates for replicates, _ in pairs for kind in kinds):
        return None
    spread = [numpy.mean([replicates[kind] for kind in kinds], axis=0) for replicates, _ in pairs]
    value = [numpy.mean([drop_of(victims, kind) for kind in kinds]) for _, victims in pairs]
    count = next(iter(one.results["means"].values()))[ALL]["count"]
    return percentile(float(value[0] - value[1]), spread[0] - spread[1], count)


def _standing(cases: dict[Any, Record]) -> str:
    """In words, whom PRM leads with its paper's steps: on the mean of the four tasks, and on the two dense ones."""
    found = []
    for kinds, title in (((*METRICS,), "the mean of the four tasks"), (DENSE, "segmentation and detection")):
        groups: dict[str, list[str]] = {"leads": [], "is level with": [], "trails": []}
        for attack in PUBLISHED:
            ahead = lead(cases["prm", LONG], cases[attack, LONG], kinds) if (attack, LONG) in cases else None
            if ahead is not None:
                how = "leads" if ahead.low > 0 else "trails" if ahead.high < 0 else "is level with"
                groups[how].append(f"`{attack}`")
        said = ", ".join(f"{how} {' '.join(names)}" for how, names in groups.items() if names)
        found.append(f"On {title} PRM {said}." if said else "")
    return f"\n{' '.join(found)} (Level: the interval holds 0.)\n" if any(found) else ""


def drop_of(victims: dict[str, Any], kind: str) -> float:
    """The mean drop over the victims of a task, or of those that read one thing."""
    return float(numpy.mean([v["drop"]["value"] for name, v in victims.items() if kind in (v["task"], reading(name))]))


def _alike() -> list[tuple[str, str, str]]:
    """Rows of the losses under one optimizer: title, attack, variant."""
    found = []
    for steps, variant in (("", MOMENTUM), (LONG, LONG_MOMENTUM)):
        found += [(loss, name, steps if name == "mi" else variant) for loss, name in ONE_OPTIMIZER.items()]
    return found


def _compared(cases: dict[Any, Record], rows: Sequence[tuple[str, str, str]], *, own: bool) -> str:
    """One line an attack, PRM of the same steps (and optimizer) before its rivals."""
    lines = [["attack", "steps", *METRICS, "mean", "PRM leads: segmentation, detection", "PRM leads: all four"]]
    shown: set[str] = set()
    for title, attack, variant in rows:
        steps = LONG.split()[0] if LONG in variant else "40"
        long, short = (LONG, "") if own else (LONG_MOMENTUM, MOMENTUM)
        prm, record = cases.get(("prm", long if LONG in variant else short)), cases.get((attack, variant))
        if prm is None or record is None:
            continue
        if steps not in shown:
            lines.append(["prm", steps, *_drops(prm), "", ""])
            shown.add(steps)
        lines.append([title, steps, *_drops(record), *(_points(lead(prm, record, k)) for k in (DENSE, (*METRICS,)))])
    return lined(lines, left=1)


def _parts(cases: dict[Any, Record]) -> str:
    prm = cases["prm", LONG_MOMENTUM]
    lines = [["attack", *METRICS, "mean", "leads PRM: segmentation, detection", "leads PRM: all four"]]
    lines.append(["prm", *_drops(prm), "", ""])
    rows = {"tokens": QUIET, "tokens, noise": TOKENS_ALONE, "tokens, noise, embedding": NO_VIEWS, "all": LONG}
    for title, variant in rows.items():
        record = cases.get((OURS[0], variant))
        if record is not None:
            ahead = [_points(lead(record, prm, kinds)) for kinds in (DENSE, (*METRICS,))]
            lines.append([f"{OURS[0]}: {title}", *_drops(record), *ahead])
    return lined(lines, left=1)


def _by_reading(cases: dict[Any, Record]) -> str:
    prm = cases["prm", LONG]
    lines = [["attack", *READINGS, *(f"PRM leads: {kind}" for kind in READINGS)]]
    for attack in ("prm", *PUBLISHED):
        record = cases.get((attack, LONG))
        if record is not None and all(kind in record.results.get("replicates", {}) for kind in READINGS):
            drops = [f"{100 * drop_of(record.results['victims'], kind):.1f}" for kind in READINGS]
            leads = ["" if attack == "prm" else _points(lead(prm, record, (kind,))) for kind in READINGS]
            lines.append([attack, *drops, *leads])
    return lined(lines, left=1)


def _by_group(cases: dict[Any, Record]) -> str:
    lines = [["attack", *GROUPS]]
    for attack in ("prm", *PUBLISHED):
        record = cases.get((attack, LONG))
        if record is not None:
            means = record.results["means"].values()
            known = [[own[group]["value"] for own in means if group in own] for group in GROUPS]
            lines.append([attack, *(f"{100 * numpy.mean(values):.1f}" if values else "-" for values in known)])
    return lined(lines, left=1)


def _drops(record: Record) -> list[str]:
    means = record.results["means"]
    values = [means[task][ALL]["value"] for task in METRICS if task in means]
    cells = [f"{100 * means[task][ALL]['value']:.1f}" if task in means else "-" for task in METRICS]
    return [*cells, f"{100 * sum(values) / max(1, len(values)):.1f}"]


def _points(one: Interval | None) -> str:
    return "-" if one is None else f"{100 * one.value:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
