"""Open-vocabulary detection: COCO's AP and AP50 over all, base and novel classes.

Lin et al., "Microsoft COCO", ECCV 2014; pycocotools matches boxes to objects and makes the averages. The bootstrap over
images repeats its last step, the curves of precision over recall, with every image's matches weighed.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy

from firmground.errors import DataError, MissingExtraError
from firmground.tasks.resampling import image_weights, percentile
from firmground.types import ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from firmground.data.annotated_images import AnnotatedImages, Detections
    from firmground.tasks.resampling import Floats
    from firmground.types import Images, Interval, Watch

RECALLS = numpy.linspace(0.0, 1.0, 101)
MOST = 100  # detections of an image that count, the surest ones


class Detector(Protocol):
    """A victim that finds objects."""

    def detect(self, images: Images, names: Sequence[str]) -> tuple[Detections, ...]:
        """What is found in each image; labels index `names`, boxes are in pixels of the images as given."""


@dataclass(frozen=True, kw_only=True)
class ClassPrecision:
    """AP and AP50 of one class of the truth."""

    name: str
    ap: float
    ap50: float


@dataclass(frozen=True, kw_only=True)
class DetectionResult:
    """AP (IoU 0.50 to 0.95) and AP50 in [0, 1] with bootstrap intervals over images, over classes of the truth.

    Base and novel are None where the data tells no novel classes. `replicates` are AP50s of resampled sets.
    """

    ap: Interval
    ap50: Interval
    base_ap50: Interval | None
    novel_ap50: Interval | None
    classes: tuple[ClassPrecision, ...]
    replicates: tuple[float, ...] = field(repr=False, default=())

    @property
    def headline(self) -> Interval:
        return self.ap50


def evaluate(
    victim: Detector, data: AnnotatedImages, *, batch_size: int = 16, rng: torch.Generator, watch: Watch = ignore
) -> DetectionResult:
    """Measures a victim on images with boxes; `rng` draws the bootstrap.

    Raises `DataError` where the data has no box, or the victim's answers do not fit.
    """
    if data.objects is None or not any(own.boxes for own in data.objects):
        raise DataError("detection needs boxes, which these images lack")
    found: list[Detections] = []
    for batch in data.batches(batch_size):
        answers = victim.detect(batch.images, data.object_names)
        if len(answers) != len(batch.rows):
            raise DataError(f"the victim gave detections for {len(answers)} of {len(batch.rows)} images")
        found += answers
        watch(len(found), len(data), "detecting")
    for one in found:
        if len(one.labels) and not 0 <= int(one.labels.min()) <= int(one.labels.max()) < len(data.object_names):
            raise DataError(f"the victim gave labels beyond the {len(data.object_names)} names it was asked for")
    return _summary(_matched(found, data), data, image_weights(len(data), rng))


@dataclass(frozen=True, kw_only=True)
class Matches:
    """One class's detections of all images, surest first, and how many objects of it each image has."""

    images: numpy.ndarray  # (detections,), the row of each one's image
    right: numpy.ndarray  # (thresholds, detections)
    wrong: numpy.ndarray  # (thresholds, detections); neither where it does not count
    objects: Floats  # (images,)


def average_precision(matches: Matches, weights: Floats) -> Floats:
    """COCO's AP at each threshold of IoU for each weighing of the images, (resamples, thresholds).

    Not a number where a weighing leaves no object. A point of the curve counts for the recalls of `RECALLS` that it is
    the first to reach.
    """
    wanted = weights @ matches.objects
    levels, (samples, detections) = len(matches.right), (len(weights), len(matches.images))
    found = numpy.zeros((samples, levels))
    each = weights[:, matches.images]
    for level in range(levels if detections else 0):
        hits, misses = ((each * kind[level]).cumsum(axis=1) for kind in (matches.right, matches.wrong))
        precision = hits / (hits + misses + numpy.spacing(1))
        envelope = numpy.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = numpy.searchsorted(RECALLS, hits / numpy.maximum(wanted, 1e-12)[:, None], side="right")
        found[:, level] = (envelope * numpy.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)
    found[wanted == 0] = numpy.nan
    return found


def _matched(found: Sequence[Detections], data: AnnotatedImages) -> dict[str, Matches]:
    """By class of the truth, what pycocotools matched to what, at all sizes of objects."""
    assert data.objects is not None
    boxes = [
        {
            "image_id": row,
            "category_id": data.names.index(data.object_names[label]),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for row, one in enumerate(found)
        for (x0, y0, x1, y1), score, label in zip(
            one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        scorer = _coco_scorer(data)
        truth = scorer.cocoGt
        scorer.cocoDt = truth.loadRes(boxes) if boxes else type(truth)()
        scorer.params.imgIds, scorer.params.catIds = sorted(truth.imgs), sorted(truth.cats)
        scorer.params.areaRng, scorer.params.areaRngLbl, scorer.params.maxDets = [[0, 1e10]], ["all"], [MOST]
        scorer.evaluate()
    kept: dict[str, list[dict[str, Any]]] = {}
    for one in scorer.evalImgs:
        if one is not None:
            kept.setdefault(data.names[one["category_id"]], []).append(one)
    return {name: matches for name, own in kept.items() if (matches := _gathered(own, len(data))).objects.any()}


def _gathered(own: Sequence[dict[str, Any]], images: int) -> Matches:
    scores = numpy.concatenate([one["dtScores"] for one in own])
    order = numpy.argsort(-scores, kind="mergesort")
    matched = numpy.concatenate([one["dtMatches"] for one in own], axis=1)[:, order] > 0
    counted = ~numpy.concatenate([one["dtIgnore"] for one in own], axis=1)[:, order].astype(bool)
    objects = numpy.zeros(images)
    for one in own:
        objects[one["image_id"]] += int((numpy.asarray(one["gtIgnore"]) == 0).sum())
    rows = numpy.concatenate([numpy.full(len(one["dtScores"]), one["image_id"], dtype=int) for one in own])
    return Matches(images=rows[order], right=matched & counted, wrong=~matched & counted, objects=objects)


def _coco_scorer(data: AnnotatedImages) -> Any:
    """A `COCOeval` that knows the truth; ids of images are their rows, of categories the places of their names."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingExtraError("pycocotools", "tasks") from error
    assert data.objects is not None
    annotations = [
        {
            "image_id": row,
            "category_id": label,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0),
            "iscrowd": int(place in own.crowds),
        }
        for row, own in enumerate(data.objects)
        for place, ((x0, y0, x1, y1), label) in enumerate(zip(own.boxes, own.labels, strict=True))
    ]
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": row, "height": height, "width": width} for row, (height, width) in enumerate(data.sizes)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(data.names)],
        "annotations": [{"id": i, **one} for i, one in enumerate(annotations, start=1)],  # 0 would mean: no match
    }
    truth.createIndex()
    return COCOeval(truth, None, "bbox")


def _summary(found: dict[str, Matches], data: AnnotatedImages, weights: Floats) -> DetectionResult:
    if not found:
        raise DataError("every object of these images is a crowd; nothing is left to be found")
    ones = numpy.ones((1, len(data)))
    whole = {name: average_precision(matches, ones)[0] for name, matches in found.items()}
    resampled = {name: average_precision(matches, weights) for name, matches in found.items()}

    def score(names: Sequence[str], levels: slice) -> tuple[Interval, Floats] | None:
        if not names:
            return None
        value = float(numpy.mean([whole[name][levels].mean() for name in names]))
        means = numpy.stack([resampled[name][:, levels].mean(axis=1) for name in names])
        seen = numpy.isfinite(means)
        replicates = numpy.where(seen, means, 0).sum(axis=0) / numpy.maximum(seen.sum(axis=0), 1)
        return percentile(value, replicates, len(data)), replicates

    every, loose = slice(None), slice(0, 1)
    ap, ap50 = score(list(found), every), score(list(found), loose)
    base = score([name for name in found if name not in data.novel], loose) if data.novel else None
    novel = score([name for name in found if name in data.novel], loose) if data.novel else None
    assert ap is not None
    assert ap50 is not None
    return DetectionResult(
        ap=ap[0],
        ap50=ap50[0],
        base_ap50=base and base[0],
        novel_ap50=novel and novel[0],
        classes=tuple(
            ClassPrecision(name=name, ap=float(levels.mean()), ap50=float(levels[0])) for name, levels in whole.items()
        ),
        replicates=tuple(ap50[1].tolist()),
    )
