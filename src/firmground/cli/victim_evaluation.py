"""A victim measured on annotated images, and on attacked ones beside them, from options to report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from firmground.cli.options import pick_device, table
from firmground.cli.progress import progress
from firmground.cli.victim_pictures import pictures_of
from firmground.data.annotation_files import read_annotated
from firmground.errors import DataError, UsageError
from firmground.models.victims.loading import VERBS, load_victim, tasks_of
from firmground.reports.victims import Measured, VictimReport, title
from firmground.rng import stream
from firmground.tasks import captioning, detection, question_answering, segmentation
from firmground.tasks.resampling import relative_drop

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.data.annotated_images import AnnotatedImages
    from firmground.reports.victims import Shown
    from firmground.types import Watch

MODULES: dict[str, Any] = {
    "segmentation": segmentation,
    "detection": detection,
    "captioning": captioning,
    "vqa": question_answering,
}
SHOWN = 6  # images in a report


@dataclass(frozen=True, kw_only=True)
class VictimEvaluation:
    """What `firmground evaluate TASK --victim` was asked for."""

    task: str
    victim: str
    images: str
    attacked: str | None = None
    revision: str | None = None
    batch_size: int = 16
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class EvaluatedVictim:
    """The report, and pictures of some images with what the victim says of them."""

    report: VictimReport
    shown: tuple[Shown, ...]


def evaluate_and_tell(options: VictimEvaluation, report: Path | None, *, as_json: bool) -> None:
    """Measures a victim, shows the metrics, and writes the report where one is wanted."""
    from firmground.reports.html import html
    from firmground.reports.victims import victim_page
    from firmground.reports.writing import check_file, write_atomically

    if report is not None:
        check_file(report)
    with progress() as watch:
        watch(0, 1, "loading")
        told = evaluate_victim(options, watch, pictures=report is not None)
    if report is not None:
        write_atomically(report, html(victim_page(told.report, told.shown)))
    show(told.report)
    if as_json:
        typer.echo(told.report.to_json())


def show(report: VictimReport) -> None:
    """The metrics with their intervals, clean and attacked, on stderr."""
    other = report.attacked or {}
    columns = ("times 100 (95 % interval)", "clean", *(("attacked",) if other else ()))
    rows = [
        (title(name), clean.percent, *((other[name].percent,) if name in other else ()))
        for name, clean in report.clean.items()
    ]
    table(f"{report.victim}, {report.task}, {report.images} images", columns, rows)
    if report.drop is not None:
        typer.echo(f"Relative drop: {report.drop.percent} %", err=True)


def evaluate_victim(options: VictimEvaluation, watch: Watch, *, pictures: bool) -> EvaluatedVictim:
    """Loads the victim, and measures it on both sets; raises `FirmgroundError` where something does not fit."""
    if options.task not in MODULES:
        raise UsageError(f"a victim has no task '{options.task}'; expected one of: {', '.join(MODULES)}")
    begun = time.perf_counter()
    data = read_annotated(options.images)
    other = None if options.attacked is None else read_annotated(options.images, images=options.attacked)
    victim = load_victim(options.victim, revision=options.revision, device=pick_device(options.device))
    if options.task not in tasks_of(victim):
        able = ", ".join(tasks_of(victim))
        raise UsageError(f"{options.victim} has no answer to {options.task}; it is made for: {able}")
    clean = measured(victim, data, options, watch)
    attacked = None if other is None else measured(victim, other, options, watch)
    report = VictimReport(
        task=options.task,
        victim=options.victim,
        revision=options.revision,
        images_from=options.images,
        attacked_from=options.attacked,
        images=len(data),
        seed=options.seed,
        clean=metrics(clean),
        attacked=None if attacked is None else metrics(attacked),
        drop=None if attacked is None else drop(clean, attacked, len(data)),
        seconds=time.perf_counter() - begun,
    )
    shown = pictures_of(victim, VERBS[options.task], data, other, SHOWN) if pictures else ()
    return EvaluatedVictim(report=report, shown=shown)


def measured(victim: Any, data: AnnotatedImages, options: VictimEvaluation, watch: Watch) -> Any:
    """The task's result; both sets are resampled alike, so that their drop has paired replicates."""
    rng = stream(options.seed, "evaluate", options.task)
    return MODULES[options.task].evaluate(victim, data, batch_size=options.batch_size, rng=rng, watch=watch)


def metrics(result: Any) -> dict[str, Measured]:
    """The metrics of a task's result by name, those that there are."""
    found = {
        name: getattr(result, name, None)
        for name in (
            "miou", "base", "novel", "pixel_accuracy", "ap", "ap50", "base_ap50", "novel_ap50", "cider", "accuracy",
        )
    }  # fmt: skip
    found |= {f"bleu_{order}": one for order, one in enumerate(getattr(result, "bleu", ()), start=1)}
    if isinstance(result, question_answering.AnswerResult):
        found |= {f"accuracy/{one.kind}": one.accuracy for one in result.kinds}
    if isinstance(result, segmentation.SegmentationResult):
        found |= {f"IoU: {one.name}": one.iou for one in result.classes}
    return {name: Measured.of(interval) for name, interval in found.items() if interval is not None}


def drop(clean: Any, attacked: Any, images: int) -> Measured | None:
    """The relative drop of the first metric; None where the victim is good for nothing when clean."""
    try:
        found = relative_drop(
            clean.headline.value, attacked.headline.value, clean.replicates, attacked.replicates, images
        )
    except DataError:
        return None
    return Measured.of(found)
