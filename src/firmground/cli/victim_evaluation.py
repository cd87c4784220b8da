"""A victim measured on annotated images, and on attacked ones beside them, from options to record.

`evaluate` and `rerun` both come through here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from firmground.cli.options import pick_device, table
from firmground.cli.outputs import check_files, write_files
from firmground.cli.progress import progress
from firmground.cli.victim_pictures import pictures_of
from firmground.data.annotation_files import read_annotated
from firmground.data.counting import several
from firmground.errors import DataError, UsageError
from firmground.models.loading import resolve, weights_sha256
from firmground.models.victims.loading import VERBS, load_victim, tasks_of
from firmground.reports import record as records
from firmground.reports.findings import Target
from firmground.reports.record import Record
from firmground.reports.victims import Measured, VictimReport, title, victim_page
from firmground.rng import stream
from firmground.tasks import captioning, detection, question_answering, segmentation
from firmground.tasks.resampling import relative_drop

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.data.annotated_images import AnnotatedImages
    from firmground.reports.html import Page
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
    """The report, its record, and pictures of some images with what the victim says of them."""

    report: VictimReport
    record: Record
    shown: tuple[Shown, ...]

    def page(self) -> Page:
        """The HTML report."""
        return victim_page(self.report, self.shown, self.record)


def evaluate_and_tell(
    options: VictimEvaluation, report: Path | None = None, record: Path | None = None, *, as_json: bool
) -> None:
    """Measures a victim, shows the metrics, and writes the report and the record where they are wanted."""
    check_files(report, record)
    with progress() as watch:
        watch(0, 1, "loading")
        told = evaluate_victim(options, watch, pictures=report is not None)
    write_files(told, report=report, record=record)
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
    table(f"{report.victim}, {report.task}, {several(report.images, 'image')}", columns, rows)
    if report.drop is not None:
        typer.echo(f"Relative drop: {report.drop.percent} %", err=True)
    elif other:
        typer.echo("There is no relative drop: the victim's score is 0 on clean images.", err=True)


def evaluate_victim(options: VictimEvaluation, watch: Watch, *, pictures: bool = False) -> EvaluatedVictim:
    """Loads the victim, and measures it on both sets; raises `FirmgroundError` where something does not fit."""
    if options.task not in MODULES:
        raise UsageError(f"a victim has no task '{options.task}'; expected one of: {', '.join(MODULES)}")
    started, begun = records.now(), time.perf_counter()
    data = read_annotated(options.images)
    other = None if options.attacked is None else read_annotated(options.images, images=options.attacked)
    device = pick_device(options.device)
    victim = load_victim(options.victim, revision=options.revision, device=device)
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
    record = Record.of_run(
        "evaluate",
        options,
        report,
        device=str(device),
        target=target_of(options),
        data=records.hashed(*data.paths, *(() if other is None else other.paths)),
        outcome="measured",
        exit_code=0,
        started=started,
    )
    return EvaluatedVictim(report=report, record=record, shown=shown)


def target_of(options: VictimEvaluation) -> Target:
    """The victim, by name and weights."""
    folder = resolve(options.victim, revision=options.revision)
    return Target(source=options.victim, revision=options.revision, weights_sha256=weights_sha256(folder))


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
