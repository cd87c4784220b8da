"""The study `clip_sift`: which sifter finds the poisoned pairs of a training set, by which encoder.

Every set is judged by two encoders: the one that was trained on it, poisons and all (`own`), and a clean one that was
trained elsewhere (`elsewhere`: another seed's scenes, other weights). Of every set its first `PAIRS` pairs are sifted,
which lie in no order. What counts is `HEADLINE`, by whichever of the two encoders. It was chosen on other pairs of
eight of these sets: BadNet and Blended at 4 % (own) and 0.5 % (both encoders), and text at both (own); and on a set of
BadCLIP by both, with another patch, poisons and weights than the set here (seed 1). The sets of the other triggers
judge it. The ASR of an own encoder says whether it learned the trigger: from few poisons it may not.
Sets of BadNet and Blended get every sifter, all others the `FEW`.
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
    OPTIMISED,
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
    from collections.abc import Collection, Sequence

    from firmground.studies.runner import Record
    from firmground.types import Suspicion, Watch

VICTIM, ELSEWHERE = "scenes-resnet-1", "scenes-resnet-2"
RATES = (RATE, 0.005)
PAIRS = 8192
OWN, OTHER = "own", "elsewhere"
HEADLINE = "displacement"
FEW = ("dao", "caption-similarity", HEADLINE)
EARLY = ("stripes", "sig", "text")
KNOWN = (*NOISE, "text", OPTIMISED)  # triggers on which the headline's form was chosen
COLUMNS = (
    Column(key="auroc", title="AUROC", kind="mean", digits=3),
    Column(key="precision", title="precision of the top 1 %", kind="mean", digits=3),
    Column(key="recall", title="recall of as many as are poisoned", kind="mean", digits=3),
    Column(key="asr", title="ASR of the encoder, share", kind="mean", digits=2),
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
    """Noise triggers first, then sets that need no further victim; those that need one of a low rate come last."""
    late = tuple(name for name in TRIGGERS if name not in (*NOISE, *EARLY))
    order = (
        (NOISE, RATES[1], OWN), (NOISE, RATES[1], OTHER), (NOISE, RATES[0], OWN), (EARLY, RATES[0], OWN),
        (late, RATES[0], OWN), (("text", "triangles"), RATES[1], OWN), ((*EARLY, *late), RATES[1], OTHER),
        ((*NOISE, *EARLY, *late), RATES[0], OTHER),
        (tuple(name for name in (*EARLY, *late) if name not in ("text", "triangles")), RATES[1], OWN),
    )  # fmt: skip
    grid = [
        Case(base=VICTIM, trigger=trigger, rate=rate, encoder=encoder)
        for triggers, rate, encoder in order
        for trigger in triggers
    ]
    optimised = (Case(base=VICTIM, trigger=OPTIMISED, rate=RATES[0], encoder=encoder) for encoder in (OWN, OTHER))
    return *grid, *optimised


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
    own = built(place, child, watch) if case.encoder == OWN else None
    encoder = load(build_base(place, base_named(ELSEWHERE), watch)) if own is None else own.encoder
    pairs = poisoned.pairs.select(range(min(PAIRS, len(poisoned.pairs))))
    rows = [row for row in poisoned.rows if row < len(pairs)]
    found = {}
    for name in SIFTERS if case.trigger in NOISE else FEW:
        rng = stream(case.seed, "sift", name)
        found[name] = judged(SIFTERS[name].sift(encoder, pairs, rng=rng, watch=watch), rows)
    asr = None if own is None else own.manifest["asr"]["value"]
    return {"poisons": len(rows), "pairs": len(pairs), "asr": asr, "sifters": found}


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
    """Every sifter's rows, and what the headline's worst sets are; sets of few noise poisons are the goal's."""
    rows = [
        {**record.case, "sifter": name, "asr": record.results.get("asr"), **found}
        for record in records
        if record.error is None and record.study == "clip_sift"
        for name, found in record.results["sifters"].items()
    ]
    own = [row for row in rows if row["sifter"] == HEADLINE]
    if not own:
        raise DataError("there is no finished case yet; run the study further")
    text = [
        "# Sifting poisoned training sets\n\n",
        *(_sentence(names[0], group) for names, group in grouped(rows, ("sifter",)).items()),
        "\n",
        markdown_table(rows, by=("trigger", "rate", "encoder", "sifter"), columns=COLUMNS),
    ]
    summary: dict[str, float | int] = {"auroc_min": min(row["auroc"] for row in own), "sets": len(own)}
    noise = [row for row in own if row["trigger"] in NOISE and row["rate"] == RATES[1]]
    if noise:
        summary["auroc_min_noise"] = min(row["auroc"] for row in noise)
        summary["precision_min_noise"] = min(row["precision"] for row in noise)
    others = [row["auroc"] for row in own if row["trigger"] not in KNOWN]
    if others:
        summary |= {"auroc_min_unseen": min(others), "sets_unseen": len(others)}
    by_encoder = grouped(own, ("encoder",)).items()
    summary |= {f"auroc_min_{names[0]}": min(row["auroc"] for row in group) for names, group in by_encoder}
    dots = {
        ", ".join(names): [row["auroc"] for row in group]
        for names, group in grouped(rows, ("sifter", "encoder")).items()
    }
    chart = Chart(name="auroc", title="AUROC of every set", axis="AUROC", dots=dots)
    return Report(markdown="".join(text), summary=summary, charts=(chart,))


def _sentence(sifter: str, rows: Sequence[Row]) -> str:
    worst = min(rows, key=lambda row: float(row["auroc"]))
    where = f"{worst['trigger']} at {100 * worst['rate']:g} %, by the encoder: {worst['encoder']}"
    return f"- {sifter}: worst AUROC of {len(rows)} sets {worst['auroc']:.3f} ({where})\n"


def clip_sift() -> Study:
    """Every sifter on every poisoned set."""
    work = partial(run_case, folder=population_folder())
    return Study(name="clip_sift", cases=cases(), run_case=work, report=report_sift, version=4)
