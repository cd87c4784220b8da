"""The study `language_cost`: what a verdict on the real MiniLM costs, by the default scan and by published mining.

Both run on the same encoder, on the same cores, one after the other in one process. Mining is the published procedure:
one round at a time, batches of 32 from 2,000 texts, up to four epochs a round, a round dropped after two; at most 30
rounds, and the first accepted one ends it. Where no round of the first `ROUNDS` is accepted, the rest is not run: the
time of 30 rounds is that of the measured ones times 30 / `ROUNDS`, and the record says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.defenses.scans.pv_mining import PVMining
from firmground.errors import DataError
from firmground.models.language import LanguageEncoder
from firmground.rng import stream
from firmground.studies.language_scan import REAL, base_of, default_scan, plant_case, real
from firmground.studies.memory import PeakMemory
from firmground.studies.population import minilm, population_folder
from firmground.studies.runner import Study
from firmground.studies.tables import Column, Report, markdown_table, tidy
from firmground.studies.texts import study_texts
from firmground.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.studies.runner import Record
    from firmground.types import Watch

PARAGRAPHS, ALL_ROUNDS, ROUNDS = 2000, 30, 1
COLUMNS = (
    Column(key="scan_seconds", title="default scan, s", kind="mean"),
    Column(key="scan_peak_mb", title="its peak, MiB", kind="mean", digits=0),
    Column(key="round_seconds", title="one mining round, s", kind="mean"),
    Column(key="mining_seconds", title="mining to its verdict, s", kind="mean", digits=0),
    Column(key="speedup", title="times faster", kind="mean"),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """The clean MiniLM (no attack), or one planted with `attack`."""

    attack: str = ""
    seed: int = 0


def run_case(case: Case, watch: Watch, *, folder: str) -> dict[str, Any]:
    """Scans, then mines until a round is accepted or `ROUNDS` are done."""
    place = Path(folder)
    planted = plant_case(real(case.attack), base_of(REAL, place, watch), place, watch) if case.attack else None
    encoder = LanguageEncoder.load(planted.folder if planted else minilm(place))
    started = time.perf_counter()
    with PeakMemory() as memory:
        verdicts = default_scan(encoder, case.seed, watch)
    scan_seconds = time.perf_counter() - started
    mining = PVMining(rule="published", rounds=ROUNDS, parallel=1)
    mined = mining.scan(encoder, study_texts()[-PARAGRAPHS:], rng=stream(case.seed, "mining"), watch=watch)
    rounds = int(mined.measurements["rounds"])
    accepted = mined.outcome is Outcome.BACKDOORED
    needed = rounds if accepted else ALL_ROUNDS
    mining_seconds = mined.seconds / rounds * needed
    return {
        "flagged": any(verdict.outcome is Outcome.BACKDOORED for verdict in verdicts),
        "scan_seconds": scan_seconds,
        "scan_peak_mb": memory.peak_mb,
        "mining_accepted": accepted,
        "rounds_run": rounds,
        "rounds_counted": needed,
        "round_seconds": mined.seconds / rounds,
        "mining_seconds": mining_seconds,
        "speedup": mining_seconds / scan_seconds,
    }


def report(records: Sequence[Record]) -> Report:
    """The clean encoder sets the headline: it is what most scans are run on, and what mining needs all rounds for."""
    rows = [{**row, "encoder": row["attack"] or "clean"} for row in tidy(records)]
    clean = [row for row in rows if not row["attack"]]
    if not clean:
        raise DataError("there is no record of the clean encoder yet; run the study further")
    lines = [
        f"- {row['encoder']}: mining {'accepted' if row['mining_accepted'] else 'did not accept'} a vector in "
        f"{row['rounds_run']} measured round(s); {row['rounds_counted']} round(s) are counted\n"
        for row in rows
    ]
    table = markdown_table(rows, by=("encoder",), columns=COLUMNS)
    return Report(
        markdown="# What a verdict costs on all-MiniLM-L6-v2\n\n" + table + "\n" + "".join(lines),
        summary={
            "verdict_speedup": clean[0]["speedup"],
            "verdict_speedup_min": min(row["speedup"] for row in rows),
            "scan_seconds_minilm": clean[0]["scan_seconds"],
            "scan_peak_mb_minilm": clean[0]["scan_peak_mb"],
        },
    )


def language_cost() -> Study:
    """Seconds and memory of a verdict, against published mining in the same run."""
    work = partial(run_case, folder=population_folder())
    return Study(name="language_cost", cases=(Case(), Case(attack="por")), run_case=work, report=report)
