"""The output of `firmground perturb`: its JSON object, which is the manifest of the images too, and its HTML report."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image, ImageDraw
from pydantic import Field

from firmground.data.counting import several
from firmground.reports.details import details, numbered
from firmground.reports.findings import Model
from firmground.reports.html import Page, Picture, PicturesSection, Section, Step, TableSection, took

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.reports.record import Record

WIDE, HIGH, EDGE = 640, 220, 30  # of the curve's picture, in pixels


class PerturbedFile(Model):
    """One image: where it came from, what it became, and how far it was moved.

    `distance` is the largest change of a pixel in the written file, of [0, 1]; `before` and `after` are what the attack
    makes small.
    """

    source: str
    source_sha256: str
    file: str
    sha256: str
    height: int
    width: int
    distance: float
    before: float
    after: float


class PerturbReport(Model):
    """One run: the attack with its settings, the encoders it was made on, and every image."""

    schema_: Literal["firmground/perturb/1"] = Field(default="firmground/perturb/1", alias="schema")
    images_from: str
    encoders: tuple[str, ...]
    weights_sha256: tuple[str, ...]
    out: str = ""
    method: str
    settings: dict[str, Any]
    epsilon: float
    jpeg: int | None = None
    seed: int
    images: tuple[PerturbedFile, ...]
    left_out: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    losses: tuple[float, ...] = ()
    seconds: float


def perturb_page(report: PerturbReport, shown: Sequence[Picture], record: Record | None = None) -> Page:
    """The page of one run; `shown` are clean image, attacked image and magnified difference, image by image."""
    farthest = max(image.distance for image in report.images)
    levels = f"{255 * report.epsilon:.3g}/255"
    sections: list[Section] = [
        PicturesSection(
            heading="Clean, attacked, and what was changed",
            pictures=tuple(shown),
            row=3,
            note=f"The difference is magnified, grey where nothing changed; no pixel moved by more than {levels}.",
        ),
        PicturesSection(
            heading="How the search went",
            pictures=(Picture(png=curve(report.losses), caption=curve_caption(report)),),
            row=1,
            note="It is jagged where a method makes something else small at every step, such as views drawn by chance.",
        ),
        TableSection(
            heading="The images",
            columns=("image", "largest change", "objective, clean", "objective, attacked"),
            rows=tuple((image.file, image.distance, image.before, image.after) for image in report.images[:200]),
            note="The attack makes its objective small. All images are in manifest.json, with their hashes.",
        ),
    ]
    told = numbered((*report.doubts, *report.left_out))
    return Page(
        title=f"{report.images_from}: perturbed",
        eyebrow="Adversarial images",
        tone="story",
        headline=f"{several(len(report.images), 'image')} perturbed within {levels}.",
        lead=(
            f"{report.method} made them on {', '.join(report.encoders)} without labels, texts of the images or a task "
            "head. What they do to a model that is built on this encoder, or on another one, is yet to be measured."
        ),
        steps=(
            Step(text="Show them to a model that you are allowed to test, and compare its answers on clean images."),
            Step(text="Repeat the run from this report.", command="firmground rerun REPORT.html"),
        ),
        facts=(
            ("Images", f"{len(report.images):,}"),
            ("Largest change", f"{255 * farthest:.3g}/255"),
            ("Time", took(report.seconds)),
        ),
        sections=tuple(sections),
        details=details(
            ((f"Settings of {report.method}", report.settings), ("Doubts, and what was left out", told)), record
        ),
        record=record,
    )


def curve_caption(report: PerturbReport) -> str:
    """What the curve shows, in numbers."""
    first, last = report.losses[0], report.losses[-1]
    return f"The mean objective over {len(report.losses)} steps: {first:.3g} at the first, {last:.3g} at the last."


def curve(values: Sequence[float]) -> bytes:
    """A PNG of a line through the values, the smallest at the bottom."""
    picture = Image.new("RGB", (WIDE, HIGH), "white")
    draw = ImageDraw.Draw(picture)
    low, high = min(values), max(values)
    across, up = (WIDE - 2 * EDGE) / max(1, len(values) - 1), (HIGH - 2 * EDGE) / ((high - low) or 1.0)
    points = [(EDGE + i * across, HIGH - EDGE - (value - low) * up) for i, value in enumerate(values)]
    draw.line([(EDGE, EDGE), (EDGE, HIGH - EDGE), (WIDE - EDGE, HIGH - EDGE)], fill="#9aa5b1")
    draw.line(points if len(points) > 1 else points * 2, fill="#2b6cb0", width=2)
    draw.text((EDGE, EDGE - 16), f"{high:.3g}", fill="#52606d")
    draw.text((EDGE, HIGH - EDGE + 4), f"{low:.3g}", fill="#52606d")
    draw.text((WIDE - EDGE - 24, HIGH - EDGE + 4), str(len(values)), fill="#52606d")
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def unlike(before: PerturbReport, after: PerturbReport, *, exact: bool) -> tuple[str, ...]:
    """In words, where two runs disagree: their images, file by file, or without `exact` only which there are."""
    found = []
    old, new = ({image.file: image for image in report.images} for report in (before, after))
    for file in sorted(old.keys() ^ new.keys()):
        found.append(f"{file} was made only {'before' if file in old else 'now'}")
    for file in sorted(old.keys() & new.keys()):
        if old[file].source_sha256 != new[file].source_sha256:
            found.append(f"the image {old[file].source} has changed since")
        elif exact and old[file].sha256 != new[file].sha256:
            found.append(f"{file} came out other than before")
    return tuple(found)
