"""What the study `prompt_relearning` says: CA and ASR before and after, by kind of attack, and the summary of it all.

The ASR that is left counts images that become the target without any trigger too, as they do behind clean prompts: how
many stands beside it. What the trigger does to the base counts too: the control shows it, prompts that were never
poisoned under the same trigger; `excess` is what is left beyond it. Attacks that did not take are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firmground.errors import DataError
from firmground.intervals import mean
from firmground.studies.charts import Chart
from firmground.studies.prompt_population import ADAPTIVE, CARRIED, STRONG
from firmground.studies.tables import Column, Report, markdown_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.studies.runner import Record
    from firmground.studies.tables import Row

GIVEN, RELEARNED, HONEST = "as given", "learned anew (ours)", "honest prompts, a control"
KNOWS = "knows a defence"
TOOK = 0.8
KNOWING = (*ADAPTIVE, *CARRIED)
COLUMNS = (
    Column(key="asr_before", title="ASR before", kind="mean", digits=3),
    Column(key="asr", title="ASR after", kind="mean", digits=3),
    Column(key="control", title="ASR of honest prompts", kind="mean", digits=3),
    Column(key="excess", title="ASR beyond them", kind="mean", digits=3),
    Column(key="natural", title="target without trigger, after", kind="mean", digits=3),
    Column(key="before", title="CA before", kind="mean", digits=3),
    Column(key="drop", title="CA lost", kind="mean", digits=3),
    Column(key="auroc", title="AUROC", kind="mean", digits=3),
)


def report_relearning(records: Sequence[Record]) -> Report:
    """A table by kind of attacker, one by pattern, and what the worst case is."""
    rows = relearned(records)
    if not rows:
        raise DataError("there is no finished case yet; run the study further")
    prompts = len({(row["pattern"], row["seed"], row["base"]) for row in rows})
    text = (
        "# Prompts learned anew\n\n"
        f"{prompts} backdoored prompts, each against fresh prompts that were learned from labels alone (the mean of "
        "three; one on EfficientNet). That the given prompt's answers do harm was seen on some of these; all other "
        "settings come from prompts of other seeds and from other images. CA lost is against the given prompt; "
        "below zero, the fresh one is better. Honest prompts were never poisoned: their ASR under the same trigger is "
        "what it does to the base. AUROC is that of the fresh prompt's doubt of the given one's label.\n\n"
    )
    tables = [
        markdown_table(rows, by=("attacker", "defence"), columns=COLUMNS),
        "\n## By pattern\n\n",
        markdown_table(rows, by=("base", "pattern", "defence"), columns=COLUMNS),
    ]
    bars = {
        f"{kind}: {name}": mean(row["asr"] for row in rows if (row["attacker"], row["defence"]) == (kind, name))
        for kind, name in dict.fromkeys((row["attacker"], row["defence"]) for row in rows)
    }
    chart = Chart(name="asr", title="ASR that is left", axis="ASR, with 95 % interval", bars=bars, line=0.05)
    return Report(markdown=text + "".join(tables), summary=summary_of(rows), charts=(chart,))


def relearned(records: Sequence[Record]) -> list[Row]:
    """A row a prompt and a defence, of the attacks that took."""
    rows: list[Row] = []
    for record in records:
        if record.error is not None or record.study != "prompt_relearning":
            continue
        found: dict[str, dict[str, Any]] = record.results["prompts"]
        given, pattern = found[GIVEN], record.case["pattern"]
        if given["asr"] < TOOK:
            continue
        attacker = KNOWS if pattern in KNOWING else STRONG if pattern == STRONG else "knows none"
        about = {**record.case, "attacker": attacker, "before": given["accuracy"], "asr_before": given["asr"]}
        about |= {"natural_before": given["natural"], "control": found[HONEST]["asr"]}
        rows += [
            about
            | {"defence": name, "drop": given["accuracy"] - facts["accuracy"]}
            | {"excess": facts["asr"] - found[HONEST]["asr"], **facts}
            for name, facts in found.items()
            if name not in (GIVEN, HONEST)
        ]
    return rows


def summary_of(rows: Sequence[Row]) -> dict[str, float | int | str]:
    """ASR and CA lost of the prompt learned anew: of all, of attackers who know a defence, full-image, worst."""
    own = [row for row in rows if row["defence"] == RELEARNED]
    knowing = [row for row in own if row["attacker"] == KNOWS]
    summary: dict[str, float | int | str] = {"prompts": len(own)}
    strong = [row for row in own if row["attacker"] == STRONG]
    for name, some in (("", own), ("adaptive_", knowing), ("full_image_", strong)):
        if some:
            left, lost = mean(row["asr"] for row in some), mean(row["drop"] for row in some)
            control, excess = (mean(row[key] for row in some) for key in ("control", "excess"))
            summary |= {
                f"{name}asr_after": left.value,
                f"{name}asr_after_high": left.high,
                f"{name}asr_control": control.value,
                f"{name}asr_excess": excess.value,
                f"{name}asr_excess_high": excess.high,
                f"{name}accuracy_drop": lost.value,
                f"{name}accuracy_drop_high": lost.high,
            }
    kinds = {pattern: mean(row["asr"] for row in own if row["pattern"] == pattern) for pattern in _patterns(own)}
    if kinds:
        worst = max(kinds, key=lambda pattern: kinds[pattern].value)
        summary |= {"worst_asr_after": kinds[worst].value, "worst_pattern": worst}
    return summary


def _patterns(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row["pattern"] for row in rows))
