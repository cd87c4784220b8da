"""Open-vocabulary segmentation: mean intersection over union (mIoU), by class, over base and over novel classes.

Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2015: pixels are summed over the whole set before
the quotient is taken. The mean is over the classes that occur in the truth, so that a clean and an attacked run are
means over the same classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy
import torch

from firmground.data.annotated_images import BACKGROUND, IGNORED
from firmground.errors import DataError
from firmground.tasks.resampling import image_weights, percentile
from firmground.types import ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.data.annotated_images import AnnotatedImages
    from firmground.tasks.resampling import Floats
    from firmground.types import Images, Interval, Watch


class Segmenter(Protocol):
    """A victim that names every pixel."""

    def segment(self, images: Images, names: Sequence[str]) -> torch.Tensor:
        """The class of each pixel, (batch, height, width) int64: an index into `names`.

        The size is that of the images. A name "background" stands for what none of the other names fits.
        """


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """The intersection over union of one class of the truth."""

    name: str
    iou: Interval


@dataclass(frozen=True, kw_only=True)
class SegmentationResult:
    """mIoU in [0, 1] with bootstrap intervals over images; `base` and `novel` leave the background out.

    None where the data tells no novel classes. `replicates` are mIoUs of resampled sets, for `relative_drop`.
    """

    miou: Interval
    base: Interval | None
    novel: Interval | None
    pixel_accuracy: Interval
    classes: tuple[ClassScore, ...]
    replicates: tuple[float, ...] = field(repr=False, default=())

    @property
    def headline(self) -> Interval:
        return self.miou


def evaluate(
    victim: Segmenter, data: AnnotatedImages, *, batch_size: int = 16, rng: torch.Generator, watch: Watch = ignore
) -> SegmentationResult:
    """Measures a victim on images with masks; `rng` draws the bootstrap.

    Raises `DataError` where the data has no masks, or the victim's answer is no map of indices.
    """
    if data.masks is None or not data.names:
        raise DataError("segmentation needs masks and the names of their classes, which these images lack")
    counts = numpy.zeros((3, len(data), len(data.names)))  # intersection, truth, found: pixels by image and class
    for batch in data.batches(batch_size):
        found = victim.segment(batch.images, data.names).cpu()
        _check(found, batch.images, len(data.names))
        for row, answer in zip(batch.rows, found, strict=True):
            counts[:, row] = pixel_counts(data.masks[row], answer, len(data.names))
        watch(batch.rows[-1] + 1, len(data), "segmenting")
    return _summary(counts, data, image_weights(len(data), rng))


def pixel_counts(truth: torch.Tensor, found: torch.Tensor, classes: int) -> Floats:
    """Pixels of the intersection, of the truth and of what was found, (3, classes), where the truth is known."""
    known = truth != IGNORED
    real, said = truth[known].long(), found[known].long()
    tallies = [torch.bincount(index, minlength=classes) for index in (real[real == said], real, said)]
    return torch.stack(tallies).double().numpy()


def mean_iou(sums: Floats, chosen: Sequence[int]) -> Floats:
    """mIoU over the chosen classes of summed counts, (3, resamples, classes); classes of no pixel at all do not count.

    Returns (resamples,), not a number where no class is left.
    """
    cut, truth, found = (kind[:, list(chosen)] for kind in sums)
    union = truth + found - cut
    seen = union > 0
    with numpy.errstate(invalid="ignore"):
        means: Floats = (cut / numpy.where(seen, union, 1)).sum(axis=1) / seen.sum(axis=1)
    return means


def _check(found: torch.Tensor, images: Images, classes: int) -> None:
    expected = (len(images), *images.shape[-2:])
    if tuple(found.shape) != expected or found.is_floating_point():
        raise DataError(f"the victim gave a {found.dtype} map of {tuple(found.shape)}; expected int64 of {expected}")
    low, high = (int(value) for value in found.aminmax())
    if low < 0 or high >= classes:
        raise DataError(f"the victim gave classes from {low} to {high}; it was asked for names 0 to {classes - 1}")


def _summary(counts: Floats, data: AnnotatedImages, weights: Floats) -> SegmentationResult:
    whole = counts.sum(axis=1, keepdims=True)
    resampled = numpy.stack([weights @ kind for kind in counts])
    present = [i for i in range(len(data.names)) if whole[1, 0, i] > 0]
    if not present:
        raise DataError("no pixel of the masks is of a class; every one is ignored")
    shown = [i for i in present if data.names[i] != BACKGROUND]

    def score(chosen: Sequence[int]) -> Interval | None:
        if not chosen:
            return None
        return percentile(float(mean_iou(whole, chosen)[0]), mean_iou(resampled, chosen), len(data))

    overall = score(present)
    assert overall is not None
    hits, pixels = (resampled[kind].sum(axis=1) for kind in (0, 1))
    return SegmentationResult(
        miou=overall,
        base=score([i for i in shown if data.names[i] not in data.novel]) if data.novel else None,
        novel=score([i for i in shown if data.names[i] in data.novel]) if data.novel else None,
        pixel_accuracy=percentile(
            float(whole[0].sum() / whole[1].sum()), hits / numpy.maximum(pixels, 1), int(whole[1].sum())
        ),
        classes=tuple(ClassScore(name=data.names[i], iou=found) for i in present if (found := score([i])) is not None),
        replicates=tuple(mean_iou(resampled, present).tolist()),
    )
