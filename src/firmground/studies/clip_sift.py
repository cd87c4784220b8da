"""The study `clip_sift`: which sifter finds the poisoned pairs of a training set, by which encoder.

Every set is judged by two encoders: the one that was trained on it, poisons and all (`own`), and a clean one that was
trained elsewhere (`elsewhere`: another seed's scenes, other weights). Of every set its first `PAIRS` pairs are sifted,
which lie in no order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.defenses.sifting import DAO, SLOF, CaptionSimilarity, Displacement, KDistance
from firmground.errors import DataError
from firmground.rng import stream
from firmground.studies.calibration import auc
from firmground.studies.charts import Chart
from firmground.studies.dual_population import (
    NOISE,
    RATE,
    TRIGGERS,
    Child,
    base_named,
    build_base,
    built,
    load,
    poison,
)
from firmground.studies.population import population_folder
from firmground.studies.runner import Study
from firmground.studies.tables import Column, Report, Row, grouped, markdown_table

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from firmground.studies.runner import Record
    from firmground.types import Suspicion, Watch

VICTIM, ELSEWHERE = "scenes-resnet-1", "scenes-resnet-2"
RATES = (RATE, 0.005)
PAIRS = 8192
OWN, OTHER = "own", "elsewhere"
EARLY = ("stripes", "sig", "text")
COLUMNS = (
    Column(key="auroc", title="AUROC", kind="mean", digits=3),
    Column(key="precision", title="precision of the top 1 %", kind="mean", digits=3),
    Column(key="recall", title="recall of as many as are poisoned", kind="mean", digits=3),
    Column(key="seconds", title="seconds", kind="mean"),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A poisoned set, and whose embeddings judge it."""

    base: str
    trigger: str
    rate: float
    encoder: str
    seed: int = 0


def cases() -> tuple[Case, ...]:
    """Noise triggers first; the rows that need further victims (of a low rate, by its own encoder) come last."""
    triggers = (*NOISE, *EARLY, *(name for name in TRIGGERS if name not in (*NOISE, *EARLY)))
    rows = [
        Case(base=VICTIM, trigger=trigger, rate=rate, encoder=encoder)
        for some in (NOISE, EARLY, triggers[len(NOISE) + len(EARLY) :])
        for rate, encoder in ((RATES[0], OWN), (RATES[1], OTHER), (RATES[0], OTHER))
        for trigger in some
    ]
    return *rows, *(Case(base=VICTIM, trigger=trigger, rate=RATES[1], encoder=OWN) for trigger in triggers)


# samples of 256 for sets of many poisons, of which fewer than k shall fall into it
SIFTERS: dict[str, Any] = {
    "dao": DAO(),
    "dao, sample of 256": DAO(sample=256),
    "slof": SLOF(),
    "k-distance, sample of 256": KDistance(sample=256),
    "caption-similarity": CaptionSimilarity(),
    "displacement": Displacement(),
}


def run_case(case: Case, watch: Watch, *, folder: str) -> dict[str, Any]:
    """What each sifter makes of the set."""
    child, place = Child(base=case.base, trigger=case.trigger, rate=case.rate, seed=case.seed), Path(folder)
    parent = load(build_base(place, base_named(case.base), watch))
    poisoned = poison(place, child, parent, watch)
    if poisoned is None:
        raise DataError(f"there is nothing to sift for in {child.name}; name a trigger")
    if case.encoder == OWN:
        encoder = built(place, child, watch).encoder
    else:
        encoder = load(build_base(place, base_named(ELSEWHERE), watch))
    pairs = poisoned.pairs.select(range(min(PAIRS, len(poisoned.pairs))))
    rows = [row for row in poisoned.rows if row < len(pairs)]
    found = {}
    for name, sifter in SIFTERS.items():
        rng = stream(case.seed, "sift", name)
        found[name] = judged(sifter.sift(encoder, pairs, rng=rng, watch=watch), rows)
    return {"poisons": len(rows), "pairs": len(pairs), "sifters": found}


def judged(suspicion: Suspicion, poisons: Collection[int]) -> dict[str, float]:
    """AUROC, precision among the most suspicious 1 %, and recall among as many as there are poisons."""
    wanted, ranked = set(poisons), suspicion.ranked()
    scores = dict(zip(suspicion.rows, suspicion.scores, strict=True))
    top = ranked[: max(1, round(0.01 * len(ranked)))]
    bad = [scores[row] for row in ranked if row in wanted]
    return {
        "auroc": auc([scores[row] for row in ranked if row not in wanted], bad),
        "precision": sum(row in wanted for row in top) / len(top),
        "recall": sum(row in wanted for row in ranked[: len(bad)]) / max(1, len(bad)),
        "seconds": suspicion.seconds,
    }


def report_sift(records: Sequence[Record]) -> Report:
    """Every sifter's rows; the headline is the one sifter and encoder whose worst AUROC is the highest."""
    rows = [
        {**record.case, "sifter": name, **found}
        for record in records
        if record.error is None and record.study == "clip_sift"
        for name, found in record.results["sifters"].items()
    ]
    if not rows:
        raise DataError("there is no finished case yet; run the study further")
    groups = grouped(rows, ("sifter", "encoder"))
    most = max(len(group) for group in groups.values())
    whole = {names: group for names, group in groups.items() if len(group) == most}
    best = max(whole, key=lambda names: min(row["auroc"] for row in whole[names]))
    noise = [row["auroc"] for row in whole[best] if row["trigger"] in NOISE]
    by_encoder = {encoder: _worst_of_best(groups, encoder) for encoder in sorted({names[1] for names in groups})}
    text = [
        "# Sifting poisoned training sets\n\n",
        f"Highest worst AUROC: {best[0]}, by the encoder: {best[1]}.\n\n",
        *(f"- {encoder}: {name}, {worst:.3f}\n" for encoder, (name, worst) in by_encoder.items()),
        "\n",
        markdown_table(rows, by=("trigger", "rate", "encoder", "sifter"), columns=COLUMNS),
    ]
    summary: dict[str, float | int] = {"auroc_min": min(row["auroc"] for row in whole[best]), "sets": most}
    summary |= {f"auroc_min_{encoder}": worst for encoder, (_, worst) in by_encoder.items()}
    if noise:
        summary["auroc_min_noise"] = min(noise)
    dots = {", ".join(names): [row["auroc"] for row in group] for names, group in groups.items()}
    chart = Chart(name="auroc", title="AUROC of every set", axis="AUROC", dots=dots)
    return Report(markdown="".join(text), summary=summary, charts=(chart,))


def _worst_of_best(groups: Mapping[tuple[str, ...], Sequence[Row]], encoder: str) -> tuple[str, float]:
    """The sifter that is best by this encoder, and its worst AUROC."""
    worst = {names[0]: min(row["auroc"] for row in own) for names, own in groups.items() if names[1] == encoder}
    return max(worst.items(), key=lambda found: found[1])


def clip_sift() -> Study:
    """Every sifter on every poisoned set."""
    work = partial(run_case, folder=population_folder())
    return Study(name="clip_sift", cases=cases(), run_case=work, report=report_sift, version=2)
