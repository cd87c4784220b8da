"""What guards of images have in common: unreadable images, rates without and with the guard, and how they are told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from firmground.cli.catalogue import method
from firmground.cli.guard_options import Told
from firmground.cli.settings import build
from firmground.data.decoding import decode
from firmground.data.image_files import image_paths
from firmground.data.pairs import as_float
from firmground.defenses.guards.fitted_images import passing
from firmground.errors import DataError
from firmground.intervals import rate
from firmground.studies.calibration import auc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from firmground.types import Images, Interval, Scores, Watch

BATCH = 64
TITLES = {
    "false_flags": "clean images flagged",
    "accuracy": "clean accuracy, without the guard",
    "guarded_accuracy": "clean accuracy, flagged ones counted as wrong",
    "repaired_accuracy": "clean accuracy, flagged ones relabelled by the guard",
    "flagged": "triggered images flagged",
    "targeted": "ASR without the guard, of images of other classes",
    "guarded_targeted": "ASR with the guard, of images of other classes",
    "repaired_targeted": "ASR with flagged ones relabelled by the guard",
}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Of images in order: labels without the guard, labels as it repairs them if it can, scores and flags."""

    labels: list[int] = field(default_factory=list)
    repaired: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    flagged: list[bool] = field(default_factory=list)

    def add(self, labels: Sequence[int], scores: Scores, repaired: Sequence[int] = ()) -> None:
        """A batch more."""
        self.labels.extend(labels)
        self.repaired.extend(repaired)
        self.values.extend(scores.values)
        self.flagged.extend(scores.flagged)


def built(family: str, name: str, settings: Sequence[str]) -> Any:
    """The guard of a family with its settings. Raises `DataError` at once for a `flag_rate` that is no share."""
    (guard,) = build([method(family, name)], settings)
    passing(torch.zeros(1), guard.flag_rate)  # else fitting would say so after all its work
    return guard


def fitted(guard: Any, out: Path, left_out: Sequence[str]) -> Told:
    """Of a guard that was fitted and written to `out`."""
    flags = guard.false_flags
    what = f"{guard.method}, flags {flags.percent} of {flags.count} clean images"
    return Told(
        lines=(f"Guard in {out}: {what}.", *left_out),
        plain={
            "schema": "firmground/guard-fit/1",
            "method": guard.method,
            "threshold": guard.threshold,
            "false_flags": asdict(flags),
            "left_out": list(left_out),
        },
    )


def answered(place: str, side: int | None, answer: Callable[[Images], dict[str, Any]], watch: Watch) -> Told:
    """Of all images of a place, decoded at `side` pixels; an unreadable one has an error in place of an answer."""
    paths, results = image_paths(place), []
    for done, path in enumerate(paths, start=1):
        told: dict[str, Any] = {"image": str(path), "answer": None, "flagged": False, "score": None, "error": None}
        try:
            shown = as_float(decode(path.read_bytes(), side, str(path)))[None]
        except (OSError, DataError) as error:
            told["error"] = str(error)
        else:
            told |= answer(shown)
        results.append(told)
        watch(done, len(paths), "classifying")
    rows = [(row["answer"] or "unreadable", "flagged" if row["flagged"] else "", row["image"]) for row in results]
    return Told(
        columns=("answer", "guard", "image"), rows=rows, plain={"schema": "firmground/guarded/1", "results": results}
    )


def measured(
    clean: Judged,
    labels: Sequence[int],
    stamped: Judged | None,
    wanted: int | None,
    *,
    target: str | None,
    left_out: Sequence[str],
) -> Told:
    """Of clean images of these labels, and of the same with a trigger for the label `wanted` if there is one."""
    rates, area = clean_rates(clean, labels), None
    if stamped is not None and wanted is not None:
        others = [row for row, label in enumerate(labels) if label != wanted]
        rates |= attacked_rates(stamped, others, wanted)
        area = auc([clean.values[row] for row in others], [stamped.values[row] for row in others])
    return Told(
        columns=("", "rate (95 % interval)", "n"),
        rows=[(TITLES[name], interval.percent, str(interval.count)) for name, interval in rates.items()],
        lines=([] if area is None else [f"\nAUROC of triggered against clean images: {area:.3f}"]) + list(left_out),
        plain={
            "schema": "firmground/guard-evaluation/1",
            "target": target,
            "results": {name: asdict(interval) for name, interval in rates.items()},
            "auroc": area,
            "left_out": list(left_out),
        },
    )


def clean_rates(clean: Judged, labels: Sequence[int]) -> dict[str, Interval]:
    """What the guard costs."""
    right = [found == label for found, label in zip(clean.labels, labels, strict=True)]
    rates = {
        "false_flags": rate(clean.flagged),
        "accuracy": rate(right),
        "guarded_accuracy": rate(hit and not flag for hit, flag in zip(right, clean.flagged, strict=True)),
    }
    if clean.repaired:
        rates["repaired_accuracy"] = rate(a == b for a, b in zip(clean.repaired, labels, strict=True))
    return rates


def attacked_rates(stamped: Judged, others: Sequence[int], wanted: int) -> dict[str, Interval]:
    """What it holds off, over the rows that are not of the target's label. Raises `DataError` where there is none."""
    if not others:
        raise DataError("all images are of the target class; an attack success rate needs others")
    rates = {
        "flagged": rate(stamped.flagged[row] for row in others),
        "targeted": rate(stamped.labels[row] == wanted for row in others),
        "guarded_targeted": rate(stamped.labels[row] == wanted and not stamped.flagged[row] for row in others),
    }
    if stamped.repaired:
        rates["repaired_targeted"] = rate(stamped.repaired[row] == wanted for row in others)
    return rates
