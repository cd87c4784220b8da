"""The study `clip_scan`: DECREE and class inversion on clean and poisoned dual encoders that they have not seen.

Clean children of the `calibration` bases set the thresholds; all children of the `report` bases, poisoned and clean,
are judged. Poisoned children of the same base differ in their trigger or seed, clean ones in their seed. The scans get
drawn scenes of the encoders' own kind and the names of the classes, as a user who knows the task has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.defenses.scans.class_inversion import ClassInversion
from firmground.defenses.scans.decree import DECREE
from firmground.errors import DataError
from firmground.rng import stream
from firmground.studies.calibration import FEWEST, auc, calibrate, judge
from firmground.studies.charts import Chart
from firmground.studies.dual_population import BASES, NOISE, TRIGGERS, Child, base_named, built, sets_of
from firmground.studies.population import population_folder
from firmground.studies.runner import Study
from firmground.studies.tables import Column, Report, Row, grouped, markdown_table, tidy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from firmground.studies.calibration import Thresholds
    from firmground.studies.runner import Record
    from firmground.types import Watch

IMAGES = 64
CLEAN, CALIBRATION = 6, 5  # clean children a base
FALSE_ALARMS = 0.05
METHODS = ("decree", "class-inversion")
COLUMNS = (
    Column(key="flagged", title="flagged, %", kind="rate"),
    Column(key="scores/decree", title="DECREE", kind="mean", digits=2),
    Column(key="scores/class-inversion", title="class inversion", kind="mean", digits=2),
    Column(key="asr_share", title="ASR, share", kind="mean", digits=2),
    Column(key="scan_seconds", title="seconds", kind="mean", digits=0),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An encoder of a base of this split: poisoned with `trigger`, or clean."""

    base: str
    split: str
    trigger: str = ""
    seed: int = 0


def cases() -> tuple[Case, ...]:
    """Clean and poisoned in turn, so that a study that was stopped early has both; noise triggers first."""
    return tuple(case for rank in range(len(TRIGGERS) + CLEAN) for base in BASES for case in _rank(base.name, rank))


def _rank(base: str, rank: int) -> Iterator[Case]:
    split = base_named(base).split
    triggers = (*NOISE, *(name for name in TRIGGERS if name not in NOISE))
    if rank < (CALIBRATION if split == "calibration" else CLEAN):
        yield Case(base=base, split=split, seed=rank)
    if split == "report" and rank < len(triggers):
        yield Case(base=base, split=split, trigger=triggers[rank])


def run_case(case: Case, watch: Watch, *, folder: str) -> dict[str, Any]:
    """Scores and outcomes of both scans."""
    found = built(Path(folder), Child(base=case.base, trigger=case.trigger, seed=case.seed), watch)
    test = sets_of(found.world).validation
    images = test.batch(0, IMAGES)
    scans = (DECREE(), ClassInversion(classes=test.label_names))
    verdicts = [s.scan(found.encoder, images, rng=stream(case.seed, "scan", s.name), watch=watch) for s in scans]
    return {
        "world": found.world,
        "asr_share": found.manifest["asr"]["value"] if found.trigger else None,
        "scores": {verdict.method: verdict.score for verdict in verdicts},
        "outcomes": {verdict.method: str(verdict.outcome) for verdict in verdicts},
        "measurements": {verdict.method: verdict.measurements for verdict in verdicts},
        "scan_seconds": round(sum(verdict.seconds for verdict in verdicts), 1),
    }


def report_scan(records: Sequence[Record]) -> Report:
    """Thresholds from the clean calibration encoders, everything else on the report split."""
    rows = tidy(record for record in records if record.study == "clip_scan")
    held = [_scores(row) for row in rows if row["split"] == "calibration"]
    judged = [row for row in rows if row["split"] == "report"]
    clean = [_scores(row) for row in judged if not row["trigger"]]
    planted = [_scores(row) for row in judged if row["trigger"]]
    if len(held) < FEWEST or not clean or not planted:
        raise DataError(
            f"the report needs {FEWEST} clean calibration encoders, and clean and poisoned ones beside them; there are "
            f"{len(held)}, {len(clean)} and {len(planted)}; run the study further"
        )
    thresholds = calibrate(held, false_alarm_rate=FALSE_ALARMS)
    worth = judge(thresholds, clean, planted)
    marked = [row | {"flagged": thresholds.flag(_scores(row)), "kind": row["trigger"] or "clean"} for row in judged]
    alone = {name: auc([s[name] for s in clean], [s[name] for s in planted]) for name in METHODS}
    limits = ", ".join(f"{name} {value:.2f}" for name, value in thresholds.values.items())
    text = [
        "# Scans of dual encoders they have not seen\n\n",
        f"{len(held)} clean encoders set the thresholds ({limits}); {len(clean)} clean and {len(planted)} poisoned "
        f"ones are judged. AUROC {worth.auc:.3f} (alone: "
        + ", ".join(f"{name} {value:.3f}" for name, value in alone.items())
        + f"), found {100 * worth.detection_rate.value:.0f} %, false alarms "
        f"{100 * worth.false_alarm_rate.value:.0f} %.\n\n",
        markdown_table(marked, by=("base", "kind"), columns=COLUMNS),
    ]
    summary: dict[str, float | int] = {
        "models": len(rows),
        "auroc": worth.auc,
        "tpr_at_5_fpr": worth.detection_rate.value,
        "false_alarm_rate": worth.false_alarm_rate.value,
        **{f"auroc_{name.replace('-', '_')}": value for name, value in alone.items()},
    }
    return Report(markdown="".join(text), summary=summary, charts=tuple(_chart(n, marked, thresholds) for n in METHODS))


def _chart(method: str, rows: Sequence[Row], thresholds: Thresholds) -> Chart:
    dots = {names[0]: [row[f"scores/{method}"] for row in own] for names, own in grouped(rows, ("kind",)).items()}
    return Chart(name=method, title=f"Scores of {method}", axis="score", dots=dots, line=thresholds.values[method])


def _scores(row: Row) -> dict[str, float]:
    return {name: row[f"scores/{name}"] for name in METHODS}


def clip_scan() -> Study:
    """Both scans over clean and poisoned dual encoders."""
    work = partial(run_case, folder=population_folder())
    return Study(name="clip_scan", cases=cases(), run_case=work, report=report_scan)
