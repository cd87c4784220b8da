"""One cleaning from its options to its record; `clean` and `rerun` both come through here."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from firmground.cli.catalogue import method
from firmground.cli.dual_measuring import measure, task_of
from firmground.cli.held_out import left_out, open_set, picked, split_set, spread
from firmground.cli.options import pick_device
from firmground.cli.settings import build
from firmground.cli.subjects import IMAGES, enough
from firmground.cli.unfinished import unfinished
from firmground.data.pair_files import table_of
from firmground.models.dual import DualEncoder
from firmground.models.loading import resolve, weights_sha256
from firmground.models.saving import mark_of
from firmground.reports import record as records
from firmground.reports.cleaning import CleanReport, card, clean_page
from firmground.reports.findings import Target
from firmground.reports.record import Record
from firmground.reports.scan import scan_report
from firmground.rng import stream
from firmground.types import Severity

if TYPE_CHECKING:
    from firmground.cli.held_out import Opened
    from firmground.defenses.cleaning import Cleaned
    from firmground.reports.html import Page
    from firmground.reports.scan import ScanReport
    from firmground.types import Watch

NEED_CLASSES = ("supervised", "rvpt")  # methods that train on images of a known class, and on no others


@dataclass(frozen=True, kw_only=True)
class CleanOptions:
    """What `firmground clean` was asked for, in plain JSON types: a record stores it, `rerun` starts from it."""

    source: str
    data: str
    root: str | None = None
    revision: str | None = None
    method: str = "disarm"
    settings: tuple[str, ...] = ()
    classes: str | None = None
    templates: str | None = None
    held_out: float = 0.1
    scan: bool = True
    fail_on: str = "low"
    seed: int = 0
    device: str = "auto"

    def files(self) -> dict[str, str]:
        """The data files of the run with their sha256; a folder of images has no hash."""
        return records.hashed(table_of(self.data), self.classes, self.templates)


@dataclass(frozen=True, kw_only=True)
class CleanedRun:
    """A cleaning with its record; the model lies where it was written."""

    report: CleanReport
    record: Record

    def page(self) -> Page:
        """The HTML report."""
        return clean_page(self.report, self.record)


def run_clean(options: CleanOptions, out: Path, watch: Watch) -> CleanedRun:
    """Cleans what the options name and writes it to `out`, a new folder, once all is measured.

    Raises `FirmgroundError` where something cannot be loaded, read or written.
    """
    (chosen,) = build([method("cleaning", options.method)], options.settings)
    device = pick_device(options.device)
    started, since = records.now(), time.perf_counter()
    encoder = DualEncoder.load(options.source, revision=options.revision, device=device)
    opened = open_set(
        options.data,
        image_size=encoder.image_size,
        root=options.root,
        classes=options.classes,
        templates=options.templates,
    )
    train, held = split_set(opened, options.held_out, stream(options.seed, "clean", "split"))
    if options.method in NEED_CLASSES:
        train = picked(train, train.named or range(len(train.pairs)))
    task = task_of(opened)
    was = weights_sha256(resolve(options.source, revision=options.revision))
    run = {"command": "clean", **asdict(options), "weights_sha256": was, "files": options.files()}
    with unfinished(out, run) as checkpoints:
        watch(0, 2, f"measuring {task} before")
        before = measure(encoder, held, task, seed=options.seed).rates
        rng = stream(options.seed, "clean", options.method)
        cleaned: Cleaned = chosen.clean(encoder, train.pairs, rng=rng, watch=watch, resume=checkpoints)
        watch(1, 2, f"measuring {task} after")
        after = measure(cleaned.encoder, held, task, seed=options.seed).rates
        scan = _rescan(cleaned.encoder, opened, options, watch) if options.scan else None
        told = tuple(left_out([train.pairs, held.pairs], opened.pairs.counted))
        report = CleanReport(
            source=options.source, revision=options.revision, data=options.data, method=cleaned.method,
            settings=cleaned.settings, seed=options.seed, steps=cleaned.steps, pairs=len(train.pairs),
            held_out=len(held.pairs), left_out=told, task=task,
            classes=opened.names, before=before, after=after, changed=cleaned.changed, losses=cleaned.losses,
            scan=scan, seconds=time.perf_counter() - since,
        )  # fmt: skip
        cleaned.encoder.save(out, card=card(report), planted=mark_of(encoder.model))
    report = report.of_weights(str(out), weights_sha256(out))
    return CleanedRun(report=report, record=_record(options, report, was, started, str(device)))


def _rescan(encoder: DualEncoder, opened: Opened, options: CleanOptions, watch: Watch) -> ScanReport:
    """The default scan of the cleaned encoder, on images of the set, as `firmground scan --images` would do it."""
    from firmground.defenses.scans import default_dual

    since = time.perf_counter()
    verdicts = default_dual.scan_dual(
        encoder,
        spread(opened.pairs, IMAGES),
        classes=enough(opened.names),
        rng=stream(options.seed, "scan"),
        watch=watch,
    )
    target = Target(source=f"{options.source}, cleaned")
    return scan_report(verdicts, target=target, seconds=time.perf_counter() - since, kind="dual-encoder")


def _record(options: CleanOptions, report: CleanReport, was: str, started: str, device: str) -> Record:
    return Record.of_run(
        "clean",
        options,
        report,
        methods={report.method: report.settings},
        device=device,
        target=Target(source=options.source, revision=options.revision, weights_sha256=was),
        data=options.files(),
        outcome="cleaned" if report.scan is None else report.scan.outcome,
        exit_code=0 if report.scan is None else report.scan.exit_code(Severity(options.fail_on)),
        started=started,
    )
