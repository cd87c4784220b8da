"""What the study `transfer` says: clean victims, mean drops by task, group and attack, ranks, ablations, all cells.

A relative drop is 1 - attacked / clean of a victim's metric. PRM's rank among the attacks of the literature is by the
mean drop over a task's victims and all epsilons that every attack was run at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firmground.errors import DataError
from firmground.studies.charts import Chart
from firmground.studies.tables import Report, lined
from firmground.studies.transfer_ablations import (
    ALL,
    METRICS,
    OURS,
    ablation_table,
    equal_passes,
    untuned_ratio,
    untuned_table,
    why_prm,
)
from firmground.studies.transfer_convergence import convergence, long_ranks
from firmground.types import Interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from firmground.studies.runner import Record

CONTROL = "noise"
SURROGATE = "resnet-1"
MIDDLE = 8  # epsilon, of 255, of the drops in the summary


def report_transfer(records: Sequence[Record], *, study: str = "transfer", surrogate: str = SURROGATE) -> Report:
    """All tables, the summary, and charts of mean drops; what was made on another surrogate comes apart."""
    good = [record for record in records if record.study == study and record.error is None]
    clean = next((record.results["victims"] for record in good if not record.case["attack"]), None)
    attacks = [record for record in good if record.case["attack"]]
    runs = [record for record in attacks if record.case["surrogate"] == surrogate]
    elsewhere = [record for record in attacks if record.case["surrogate"] != surrogate]
    if clean is None or not runs:
        raise DataError("there is no clean case and no attack yet; run the study further")
    plain = [record for record in runs if not record.case["variant"]]
    text = [
        "# From one encoder into everything built on it\n\n",
        f"Adversarial images are made on one CLIP (`{surrogate}`), rounded to 8 bits, and shown to all victims. "
        "A relative drop is 1 - attacked / clean, with a bootstrap over images that draws the same for both. Attacks "
        "take 40 steps; what 250 change, as many as PRM's paper takes, has a table of its own.\n\n",
        "## Victims when clean\n\n", _clean_table(clean),
        "\n## Mean relative drop over a task's victims, %\n\n", _mean_table(plain, ALL), equal_passes(runs),
        convergence(runs),
        "\n## By what the attacker knows of the victim, %\n\n", _group_table(plain),
        "\n## Ablations of PRM, mean relative drop, %\n\n", ablation_table(runs), why_prm(runs),
        *untuned_table(plain),
        *(["\n## Made on another tower, %\n\n", _group_table(elsewhere)] if elsewhere else []),
        "\n## All victims\n\n", *_victim_tables(plain, clean),
    ]  # fmt: skip
    return Report(markdown="".join(text), summary=_summary(plain, clean) | long_ranks(runs), charts=_charts(plain))


def mean_drops(runs: Sequence[Record], group: str = ALL) -> dict[str, dict[str, dict[int, Interval]]]:
    """By task, attack and epsilon."""
    found: dict[str, dict[str, dict[int, Interval]]] = {}
    for record in runs:
        for task, groups in record.results["means"].items():
            if group in groups:
                own = {name: groups[group][name] for name in ("value", "low", "high", "count")}
                levels = found.setdefault(task, {}).setdefault(record.case["attack"], {})
                levels[int(record.case["epsilon"])] = Interval(**own)
    return found


def rank(drops: Mapping[str, Mapping[int, Interval]], attack: str) -> int | None:
    """The place of an attack, from 1, among those of the literature: one more than beat it.

    An attack beats it by the mean drop over the epsilons that both were run at.
    """
    if attack not in drops:
        return None
    own, better = drops[attack], 0
    for name, other in drops.items():
        shared = set(own) & set(other)
        if shared and name not in (attack, *OURS, CONTROL):
            better += sum(other[level].value - own[level].value for level in shared) > 0
    return 1 + better


def _summary(plain: Sequence[Record], clean: Mapping[str, Any]) -> dict[str, float | int]:
    drops = mean_drops(plain)
    found: dict[str, float | int] = {"victims": len(clean)}
    for task, own in drops.items():
        place = rank(own, "prm")
        if place is not None:
            found[f"prm_rank_{task}"] = place
    for task, own in drops.items():
        for name, levels in own.items():
            if MIDDLE in levels:
                found[f"drop_{task}_{name}"] = round(levels[MIDDLE].value, 4)
    ratios = {name: _over_prm(drops, name) for name in OURS}
    known = [value for value in ratios.values() if value is not None]
    untuned = untuned_ratio(plain)
    return (
        found
        | ({"ours_over_prm": max(known)} if known else {})
        | ({} if untuned is None else {"ours_over_prm_untuned": untuned})
    )


def _over_prm(drops: Mapping[str, Mapping[str, Mapping[int, Interval]]], name: str) -> float | None:
    """The mean over tasks and shared epsilons of an attack's drop, over PRM's."""
    pairs = [
        (own[name][level].value, own["prm"][level].value)
        for own in drops.values() if name in own and "prm" in own
        for level in own[name] if level in own["prm"]
    ]  # fmt: skip
    return round(sum(a for a, _ in pairs) / sum(b for _, b in pairs), 4) if pairs else None


def _clean_table(clean: Mapping[str, Any]) -> str:
    lines = [["victim", "group", "metric", "clean", "base", "novel"]]
    for name, own in clean.items():
        base, novel = (own.get(key) or own.get(f"{key}_ap50") for key in ("base", "novel"))
        cells = [_share(one) if one else "-" for one in (own["score"], base, novel)]
        lines.append([name, own["group"], METRICS[own["task"]], *cells])
    return lined(lines, left=3)


def _mean_table(runs: Sequence[Record], group: str) -> str:
    drops = mean_drops(runs, group)
    lines = [["attack", "epsilon", *METRICS, "mean"]]
    for name, level in _cells(runs):
        own = [drops.get(task, {}).get(name, {}).get(level) for task in METRICS]
        known = [one.value for one in own if one is not None]
        mean = f"{100 * sum(known) / len(known):.1f}" if known else "-"
        lines.append([name, f"{level}/255", *(_percent(one) for one in own), mean])
    return lined(lines, left=2)


def _group_table(runs: Sequence[Record]) -> str:
    groups = sorted({own["group"] for record in runs for own in record.results["victims"].values()}, reverse=True)
    drops = {group: mean_drops(runs, group) for group in groups}
    lines = [["attack", "epsilon", "group", *METRICS]]
    for name, level in _cells(runs):
        for group in groups:
            own = [drops[group].get(task, {}).get(name, {}).get(level) for task in METRICS]
            lines.append([name, f"{level}/255", group, *(_percent(one) for one in own)])
    return lined(lines, left=3)


def _victim_tables(runs: Sequence[Record], clean: Mapping[str, Any]) -> list[str]:
    """One table an epsilon: each victim's attacked score and its drop in per cent, by attack."""
    found = []
    for level in sorted({int(record.case["epsilon"]) for record in runs}):
        by_attack = {
            record.case["attack"]: record.results["victims"] for record in runs if record.case["epsilon"] == level
        }
        own = {name: by_attack[name] for name, _ in _cells(runs) if name in by_attack}
        lines = [["victim", "clean", *own]]
        for name, facts in clean.items():
            cells = [f"{cell[name]['attacked']:.3f}, {_percent(cell[name]['drop'])}" if name in cell else "-"
                     for cell in own.values()]  # fmt: skip
            lines.append([name, f"{facts['score']['value']:.3f}", *cells])
        found.append(f"### epsilon {level}/255: attacked score, relative drop in %\n\n{lined(lines, left=1)}\n")
    return found


def _cells(runs: Sequence[Record]) -> list[tuple[str, int]]:
    """Attack and epsilon of all runs: by epsilon, PRM first, then ours, then the others, the control last."""
    found = {(str(record.case["attack"]), int(record.case["epsilon"])) for record in runs}
    order = ("prm", *OURS)
    return sorted(found, key=lambda c: (c[1], c[0] == CONTROL, c[0] not in order, c[0]))


def _percent(one: Interval | Mapping[str, float] | None) -> str:
    if one is None:
        return "-"
    value, low, high = (one[k] if not isinstance(one, Interval) else getattr(one, k) for k in ("value", "low", "high"))
    shown = [f"{round(100 * x, 1) + 0.0:.1f}" for x in (value, low, high)]  # no minus before a 0.0
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def _share(one: Mapping[str, float]) -> str:
    return f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})"


def _charts(runs: Sequence[Record]) -> tuple[Chart, ...]:
    """A chart a task: mean drop over epsilon, a curve for each attack that was run at several."""
    drops, charts = mean_drops(runs), []
    for task, own in drops.items():
        curves = {
            name: [(float(level), one.value) for level, one in sorted(levels.items())]
            for name, levels in own.items()
            if len(levels) > 1
        }
        title = f"Mean relative drop of {METRICS[task]} over the victims of {task}"
        charts.append(Chart(name=f"drop-{task}", title=title, axis="epsilon, of 255", across="drop", curves=curves))
    return tuple(charts)
