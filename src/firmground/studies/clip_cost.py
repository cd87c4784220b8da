"""The study `clip_cost`: what cleaning and scanning a dual encoder cost, each against its plain form in one process.

CleanCLIP passes originals and augmentations through each tower in one forward pass; the plain form has two passes.
DECREE searches all restarts and lambdas in one batch; the plain form searches them one after the other. Both forms do
the same number of steps on the same encoder with random weights: time does not depend on what was learned.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from firmground.data.scenes import SceneWorld
from firmground.defenses.cleaning import CleanCLIP
from firmground.defenses.scans.decree import DECREE
from firmground.errors import DataError
from firmground.models.augmentation import augment
from firmground.models.contrastive import Views, embed_views, info_nce, train_encoder, unimodal
from firmground.models.text_edits import edit_texts
from firmground.rng import stream
from firmground.studies.dual_data import SIDE, scene_pairs
from firmground.studies.dual_population import base_named, fresh
from firmground.studies.memory import PeakMemory
from firmground.studies.runner import Study
from firmground.studies.tables import Column, Report, markdown_table, tidy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firmground.data.pairs import PairBatch
    from firmground.models.dual import DualEncoder
    from firmground.studies.runner import Record
    from firmground.types import Watch

ENCODERS = ("scenes-resnet-1", "scenes-convnext-3")
PAIRS, SCENES, SCAN_STEPS = 1024, 1024, 40
METHOD = CleanCLIP(epochs=1, batch_size=64, step_size=1e-3, warm_up=0.1)
COLUMNS = (
    Column(key="joint_seconds", title="CleanCLIP, s an epoch", kind="mean", digits=2),
    Column(key="plain_seconds", title="two passes, s", kind="mean", digits=2),
    Column(key="cleaning_speedup", title="times faster", kind="mean", digits=2),
    Column(key="joint_mb", title="peak MiB", kind="mean", digits=0),
    Column(key="plain_mb", title="two passes, MiB", kind="mean", digits=0),
    Column(key="batched_seconds", title="DECREE, s", kind="mean", digits=2),
    Column(key="single_seconds", title="one lambda at a time, s", kind="mean", digits=2),
    Column(key="decree_speedup", title="times faster", kind="mean", digits=2),
    Column(key="scenes_per_second", title="scenes/s", kind="mean", digits=0),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An architecture of the population; repeated under other seeds."""

    base: str
    seed: int = 0


def two_passes(encoder: DualEncoder, pairs: Any, *, rng: torch.Generator, watch: Watch) -> None:
    """CleanCLIP's training with a forward pass for the originals and one for the augmentations."""

    def loss(towers: Any, batch: PairBatch, draws: torch.Generator) -> dict[str, torch.Tensor]:
        other = augment(batch.images, METHOD.augmentation, rng=draws)
        first = embed_views(towers, [batch.images], [batch.captions])
        second = embed_views(towers, [other], [edit_texts(batch.captions, rng=draws, rate=METHOD.edit_rate)])
        views = Views(images=first.images + second.images, texts=first.texts + second.texts, scale=first.scale)
        return {"contrastive": info_nce(views.images[0], views.texts[0], views.scale), "unimodal": unimodal(views)}

    train_encoder(encoder, pairs, METHOD, loss, rng=rng, watch=watch, stage="cleaning in two passes")


def run_case(case: Case, watch: Watch) -> dict[str, Any]:
    """Both forms of both methods, each after a short warm-up of its own."""
    encoder, pairs = fresh(base_named(case.base)), scene_pairs(PAIRS, case.seed)
    small = pairs.select(range(2 * METHOD.batch_size))
    rng = stream(case.seed, "cost")
    METHOD.clean(encoder, small, rng=rng, watch=watch)
    joint = measured(lambda: METHOD.clean(encoder, pairs, rng=rng, watch=watch))
    two_passes(encoder, small, rng=rng, watch=watch)
    plain = measured(lambda: two_passes(encoder, pairs, rng=rng, watch=watch))
    images = (pairs.images[:64].float() / 255).contiguous()
    scan = DECREE(steps=SCAN_STEPS)
    one = replace(scan, restarts=1)
    scan.scan(encoder, images, rng=rng, watch=watch)
    batched = measured(lambda: scan.scan(encoder, images, rng=rng, watch=watch))
    alone = [replace(one, sparsities=(size,)) for size in scan.sparsities for _ in range(scan.restarts)]
    single = measured(lambda: [form.scan(encoder, images, rng=rng, watch=watch) for form in alone])
    drawn = measured(lambda: SceneWorld(size=SIDE).scenes(SCENES, seed=case.seed))
    return {
        "joint_seconds": joint.seconds,
        "plain_seconds": plain.seconds,
        "cleaning_speedup": plain.seconds / joint.seconds,
        "joint_mb": joint.peak_mb,
        "plain_mb": plain.peak_mb,
        "cleaning_peak_memory_ratio": joint.peak_mb / plain.peak_mb,
        "batched_seconds": batched.seconds,
        "single_seconds": single.seconds,
        "decree_speedup": single.seconds / batched.seconds,
        "scenes_per_second": SCENES / drawn.seconds,
        "threads": torch.get_num_threads(),
    }


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Processor seconds of this process, and its largest resident memory."""

    seconds: float
    peak_mb: float


def measured(work: Callable[[], object]) -> Measured:
    """Runs `work`. Processor time, not wall time: a busy machine shall not decide a ratio."""
    with PeakMemory() as memory:
        begun = time.process_time()
        work()
        seconds = time.process_time() - begun
    return Measured(seconds=seconds, peak_mb=memory.peak_mb)


def report_cost(records: Sequence[Record]) -> Report:
    """Ratios by architecture; the summary takes the means over all runs."""
    rows = tidy(record for record in records if record.study == "clip_cost")
    if not rows:
        raise DataError("there is no finished case yet; run the study further")
    names = ("cleaning_speedup", "cleaning_peak_memory_ratio", "decree_speedup", "scenes_per_second")
    summary: dict[str, float | int] = {name: sum(row[name] for row in rows) / len(rows) for name in names}
    text = (
        "# What cleaning and scanning a dual encoder cost\n\nSeconds are of processor time; memory is of the whole "
        f"process. An epoch is {PAIRS} pairs, a scan {SCAN_STEPS} steps.\n\n"
    )
    return Report(markdown=text + markdown_table(rows, by=("base",), columns=COLUMNS), summary=summary)


def clip_cost() -> Study:
    """Seconds and memory against plain forms in the same run."""
    cases = tuple(Case(base=base, seed=seed) for seed in range(2) for base in ENCODERS)
    return Study(name="clip_cost", cases=cases, run_case=run_case, report=report_cost)
