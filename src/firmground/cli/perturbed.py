"""What `firmground perturb` leaves behind: the images, their manifest, the record, and pictures for its report."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from firmground.cli.unfinished import RUN
from firmground.data.counting import counted_lines
from firmground.data.decoding import decode
from firmground.data.encoding import jpeg, png
from firmground.errors import DataError
from firmground.reports import record as records
from firmground.reports.findings import Target
from firmground.reports.html import Picture
from firmground.reports.perturbing import PerturbedFile, PerturbReport
from firmground.reports.record import Record
from firmground.reports.writing import write_atomically

if TYPE_CHECKING:
    from firmground.cli.perturbing import PerturbOptions
    from firmground.data.image_files import ImageFile, ImageFiles
    from firmground.types import Images, Watch

MANIFEST = "manifest.json"
STEP = "step-{:06d}.json"  # what is known of a batch whose images are all written
SHOWN = 6  # images in a report


def written(
    chosen: Any,
    encoders: list[Any],
    found: ImageFiles,
    files: tuple[ImageFile, ...],
    folder: Path,
    quality: int | None,
    rng: torch.Generator,
    watch: Watch,
    extra: dict[str, Any],
) -> dict[str, Any]:
    """Perturbs one batch of files and writes its images; returns what is to be known of them, in JSON types.

    They are PNG files, or JPEG files of a `quality`, whose pixels may lie further from the clean ones.
    """
    batch = found.read(files)
    if not batch.files:
        return {"images": [], "broken": dict(batch.broken), "doubts": [], "losses": []}
    made = chosen.perturb(encoders, batch.images, rng=rng, watch=watch, **extra)
    rows = []
    for number, (file, image) in enumerate(zip(batch.files, made.images, strict=True)):
        data = png(image) if quality is None else jpeg(image, quality)
        name = f"{file.name}.{'png' if quality is None else 'jpg'}"
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        saved = decode(data, None, name).float() / 255
        rows.append(
            PerturbedFile(
                source=str(file.path),
                source_sha256=records.file_sha256(file.path),
                file=name,
                sha256=hashlib.sha256(data).hexdigest(),
                height=file.height,
                width=file.width,
                distance=levels(saved - batch.images[number]) / 255,
                before=made.before[number],
                after=made.after[number],
            ).model_dump(mode="json")
        )
    return {
        "images": rows, "broken": dict(batch.broken), "doubts": list(made.doubts), "losses": list(made.losses)
    }  # fmt: skip


def levels(change: torch.Tensor) -> int:
    """The largest change of a pixel, between images of 256 levels."""
    return int((255 * change).abs().max().round())


def report_of(
    options: PerturbOptions,
    settings: dict[str, Any],
    found: ImageFiles,
    steps: list[dict[str, Any]],
    hashes: tuple[str, ...],
    *,
    seconds: float,
) -> PerturbReport:
    """The report over all batches."""
    counted = Counter(found.counted)
    counted["cannot be decoded"] += sum(len(step["broken"]) for step in steps)
    left_out = counted_lines(counted, "file")
    if not any(step["images"] for step in steps):
        raise DataError(f"none of the images of {options.images} can be read; {'; '.join(left_out)}")
    return PerturbReport(
        images_from=options.images,
        encoders=options.encoders,
        weights_sha256=hashes,
        method=options.method,
        settings=settings,
        epsilon=settings["epsilon"],
        jpeg=options.jpeg,
        seed=options.seed,
        images=tuple(PerturbedFile.model_validate(row) for step in steps for row in step["images"]),
        left_out=left_out,
        doubts=tuple(dict.fromkeys(line for step in steps for line in step["doubts"])),
        losses=mean_curve(steps),
        seconds=seconds,
    )


def mean_curve(steps: list[dict[str, Any]]) -> tuple[float, ...]:
    """The objective at every step, the mean over all images."""
    known = [(len(step["images"]), step["losses"]) for step in steps if step["losses"]]
    total = sum(count for count, _ in known)
    return tuple(
        sum(count * losses[i] for count, losses in known) / total for i in range(len(known[0][1]) if known else 0)
    )


def finish(folder: Path, out: Path, report: PerturbReport) -> None:
    """Writes the manifest, gives the folder its name, and then removes what only an unfinished run needs."""
    write_atomically(folder / MANIFEST, report.to_json() + "\n")
    os.replace(folder, out)  # noqa: PTH105 (Path.replace is the same, but this says that folders are meant)
    for path in (*out.glob("step-*.json"), out / RUN):
        path.unlink(missing_ok=True)


def record_of(options: PerturbOptions, report: PerturbReport, started: str, device: str) -> Record:
    """The record, from which `rerun` repeats the run."""
    return Record.of_run(
        "perturb",
        options,
        report,
        methods={report.method: report.settings},
        device=device,
        target=Target(source=options.encoders[0], revision=options.revision, weights_sha256=report.weights_sha256[0]),
        data=options.files(),
        outcome="perturbed",
        exit_code=0,
        started=started,
    )


def pictures(report: PerturbReport, found: ImageFiles, out: Path) -> list[Picture]:
    """Clean image, attacked image and magnified difference of a few images, for a report."""
    files, shown = {str(file.path): file for file in found.files}, []
    for image in report.images[:SHOWN]:
        clean = found.read((files[image.source],)).images[0]
        attacked = decode((out / image.file).read_bytes(), None, image.file).float() / 255
        shown += [
            Picture(png=png(clean), caption=image.file),
            Picture(png=png(attacked), caption=f"attacked: {image.before:.3g} became {image.after:.3g}"),
            Picture(png=png(magnified(attacked - clean, report.epsilon)), caption=f"x {0.5 / report.epsilon:.3g}"),
        ]
    return shown


def magnified(change: Images, epsilon: float) -> Images:
    """A change within epsilon as an image: grey where there is none."""
    return (0.5 + 0.5 * change / epsilon).clamp(0, 1)
