"""One run of an evasion from its options to its record; `perturb` and `rerun` both come through here."""

from __future__ import annotations

import inspect
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.cli.bases import load_base
from firmground.cli.catalogue import method
from firmground.cli.options import pick_device
from firmground.cli.perturbed import STEP, finish, pictures, record_of, report_of, written
from firmground.cli.settings import build
from firmground.cli.unfinished import unfinished
from firmground.data.decoding import decode
from firmground.data.image_files import find_images
from firmground.errors import DataError, UsageError
from firmground.models.loading import resolve, weights_sha256
from firmground.reports import record as records
from firmground.reports.perturbing import PerturbReport, perturb_page
from firmground.reports.record import Record
from firmground.reports.writing import write_atomically
from firmground.rng import stream

if TYPE_CHECKING:
    from firmground.data.image_files import ImageFile, ImageFiles
    from firmground.reports.html import Page
    from firmground.types import Watch

SAMPLE = 256  # images that one change for all is made on


@dataclass(frozen=True, kw_only=True)
class PerturbOptions:
    """What `firmground perturb` was asked for, in plain JSON types: a record stores it, `rerun` starts from it."""

    method: str
    images: str
    encoders: tuple[str, ...]
    revision: str | None = None
    settings: tuple[str, ...] = ()
    target: str | None = None
    largest: int = 1024
    jpeg: int | None = None
    seed: int = 0
    device: str = "auto"

    def files(self) -> dict[str, str]:
        """The data files of the run with their sha256; the images of a folder are in its results."""
        return records.hashed(self.images, self.target)


@dataclass(frozen=True, kw_only=True)
class PerturbedRun:
    """A run with its record; the images lie where they were written, and `found` are the clean ones."""

    report: PerturbReport
    record: Record
    found: ImageFiles

    def page(self) -> Page:
        """The HTML report; it reads images from both places."""
        return perturb_page(self.report, pictures(self.report, self.found, Path(self.report.out)), self.record)


def run_perturb(options: PerturbOptions, out: Path, watch: Watch) -> PerturbedRun:
    """Perturbs what the options name and writes it to `out`, a new folder; a killed run goes on where it was.

    Raises `FirmgroundError` where something cannot be loaded, read or written.
    """
    (chosen,) = build([method("evasion", options.method)], options.settings)
    extra = target_of(chosen, options)
    found = find_images(options.images, largest=options.largest)
    batches = list(found.batches(chosen.batch_size))
    device, started, since = pick_device(options.device), records.now(), time.perf_counter()
    encoders = [load_base(source, revision=options.revision, device=device) for source in options.encoders]
    hashes = tuple(weights_sha256(resolve(source, revision=options.revision)) for source in options.encoders)
    listed = [[file.name, file.height, file.width] for file in found.files]
    run = {"command": "perturb", **asdict(options), "weights_sha256": hashes, "files": options.files(), "found": listed}
    with unfinished(out, run) as folder:
        curve: tuple[float, ...] = ()
        if is_universal(chosen) and missing(folder, len(batches)):
            sample = found.read(sample_of(found, batches)).images
            learned = chosen.perturb(encoders, sample, rng=stream(options.seed, "perturb", options.method), watch=watch)
            extra, curve = {"pattern": learned.pattern}, learned.losses
        for number in missing(folder, len(batches)):
            rng = stream(options.seed, "perturb", options.method, number)
            made = written(chosen, encoders, found, batches[number], folder, options.jpeg, rng, watch, extra)
            write_atomically(folder / STEP.format(number), json.dumps(made | {"losses": made["losses"] or curve}))
        steps = [json.loads((folder / STEP.format(n)).read_text(encoding="utf-8")) for n in range(len(batches))]
        report = report_of(options, asdict(chosen), found, steps, hashes, seconds=time.perf_counter() - since)
        finish(folder, out, report)
    report = report.model_copy(update={"out": str(out)})
    return PerturbedRun(report=report, record=record_of(options, report, started, str(device)), found=found)


def fraction(text: str) -> float:
    """A number written as such or as a fraction: 8/255. Raises `UsageError` for anything else."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"--epsilon expects a share of the range of a pixel, such as 8/255, got '{text}'") from None


def target_of(chosen: Any, options: PerturbOptions) -> dict[str, Any]:
    """What an attack towards something is given beside the images. Raises `UsageError` where it lacks it."""
    takes = "target" in inspect.signature(chosen.perturb).parameters
    if options.target is not None and not takes:
        raise UsageError(f"{options.method} goes towards nothing; leave --target out")
    if options.target is None:
        if takes and not getattr(chosen, "text", ""):
            text = " or --set text=..." if hasattr(chosen, "text") else ""
            raise UsageError(f"{options.method} needs something to go towards: give --target IMAGE{text}")
        return {}
    path = Path(options.target)
    if not path.is_file():
        raise DataError(f"there is no target image {path}; name an image file")
    return {"target": decode(path.read_bytes(), None, str(path))[None].float() / 255}


def is_universal(chosen: Any) -> bool:
    """Whether a method makes one change for all images."""
    return "pattern" in inspect.signature(chosen.perturb).parameters


def sample_of(found: ImageFiles, batches: list[tuple[ImageFile, ...]]) -> tuple[ImageFile, ...]:
    """The images that one change for all is made on: the first ones. Raises `UsageError` for images of many sizes."""
    sizes = {(file.height, file.width) for file in found.files}
    if len(sizes) > 1:
        raise UsageError(f"one change for all images needs images of one size, and these have {len(sizes)}; sort them")
    return tuple(file for files in batches for file in files)[:SAMPLE]


def missing(folder: Path, count: int) -> list[int]:
    """The batches whose images are not all written yet."""
    return [number for number in range(count) if not (folder / STEP.format(number)).is_file()]
