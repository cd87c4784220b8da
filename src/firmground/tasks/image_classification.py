"""Image classification under a trigger: clean accuracy (CA), accuracy on triggered images, attack success rates.

Targeted ASR counts only images that are not of the target class, as CleanCLIP (ICCV 2023) and most others do; beside it
stands the rate over all images, which a model that is always right does not bring to zero.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from firmground.data.pairs import as_float
from firmground.errors import DataError
from firmground.intervals import wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from firmground.data.labelled_images import LabelledImages
    from firmground.types import Images, Interval

    Stamped = torch.Tensor | Callable[[Images], Images]


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """Accuracy on clean and on triggered images, and ASR by both definitions; None where there is no trigger."""

    accuracy: Interval
    triggered_accuracy: Interval | None = None
    target: str | None = None
    targeted: Interval | None = None  # of the images not of the target class: those classified as it
    targeted_all: Interval | None = None  # of all images: those classified as the target class


def evaluate(
    predict: Callable[[Images], list[int]],
    data: LabelledImages,
    *,
    stamped: Stamped | None = None,
    target: int | None = None,
    batch_size: int = 64,
) -> ImageResult:
    """Measures a classifier on clean images and on the same images with a trigger.

    `predict` returns one label an image. `stamped` is the triggered images in the order of `data`, or what makes them
    from a batch. `target` is the label of the ASR; without it, the one that most triggered images are taken for.
    """
    truth = list(data.labels)
    clean = labels_of(predict, clean_batches(data, batch_size))
    accuracy = wilson(sum(found == label for found, label in zip(clean, truth, strict=True)), len(truth))
    if stamped is None:
        return ImageResult(accuracy=accuracy)
    run = labels_of(predict, stamped_batches(data, stamped, batch_size))
    aim = most_common(run) if target is None else target
    if not 0 <= aim < len(data.label_names):
        raise DataError(f"the target label {aim} has no name; there are {len(data.label_names)} classes")
    others = [found for found, label in zip(run, truth, strict=True) if label != aim]
    return ImageResult(
        accuracy=accuracy,
        triggered_accuracy=wilson(sum(found == label for found, label in zip(run, truth, strict=True)), len(truth)),
        target=data.label_names[aim],
        targeted=wilson(sum(found == aim for found in others), len(others)),
        targeted_all=wilson(sum(found == aim for found in run), len(run)),
    )


def clean_batches(data: LabelledImages, size: int) -> Iterator[Images]:
    """The images in order, `size` at a time, in [0, 1]."""
    yield from (data.batch(start, size) for start in range(0, len(data), size))


def stamped_batches(data: LabelledImages, stamped: Stamped, size: int) -> Iterator[Images]:
    """The same with the trigger on them; `DataError` where their number changes."""
    if callable(stamped):
        for images in clean_batches(data, size):
            triggered = stamped(images)
            if len(triggered) != len(images):
                raise DataError(
                    f"the trigger gave {len(triggered)} images for {len(images)}; it must keep their number"
                )
            yield triggered
    elif len(stamped) != len(data):
        raise DataError(f"expected {len(data)} triggered images, one for each clean one, got {len(stamped)}")
    else:
        yield from (as_float(images) for images in stamped.split(size))


def labels_of(predict: Callable[[Images], list[int]], batches: Iterator[Images]) -> list[int]:
    """The label of every image of all batches; `DataError` where a batch gets another number of labels."""
    labels: list[int] = []
    for images in batches:
        found = list(predict(images))
        if len(found) != len(images):
            raise DataError(f"the classifier gave {len(found)} labels for {len(images)} images; it must give one each")
        labels += found
    return labels


def most_common(labels: list[int]) -> int:
    """The most frequent label, the smallest of several."""
    return min(Counter(labels).items(), key=lambda item: (-item[1], item[0]))[0]
