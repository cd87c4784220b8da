"""Passes of prompt learning without gradients: how good a prompt is, and which classes its mapping begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from firmground.data.pairs import as_float
from firmground.errors import DataError
from firmground.intervals import wilson
from firmground.prompts.mappings import by_frequency, by_index, by_meaning, votes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.classifiers import ImageClassifier
    from firmground.prompts.prompted import PromptedClassifier
    from firmground.prompts.tuning import Tuning
    from firmground.prompts.visual_prompting import VisualPrompting
    from firmground.types import Images, Interval, Watch


@torch.no_grad()
def judge(classifier: PromptedClassifier, data: LabelledImages, how: VisualPrompting) -> tuple[Interval, float]:
    """Accuracy and mean loss on images, batch by batch."""
    right, loss = 0, 0.0
    for start in range(0, len(data), how.batch_size):
        images, labels = take(data, range(start, min(start + how.batch_size, len(data))), classifier.base)
        with fast(classifier.base, how):
            logits = classifier.logits(images).float()
        right += int((logits.argmax(dim=1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    return wilson(right, len(data)), loss / len(data)


@torch.no_grad()
def first_mapping(
    base: ImageClassifier, data: LabelledImages, how: VisualPrompting, now: Tuning, watch: Watch
) -> torch.Tensor:
    """Where the mapping begins, (labels,); by votes under the prompt as it begins, unless it needs none."""
    if how.mapping == "index":
        return by_index(now.classes, len(data.label_names))
    if how.mapping == "semantic":
        if base.encoder is None:
            raise DataError(f"a semantic mapping needs a model that reads texts; {base.source} reads images only")
        return by_meaning(base.encoder, base.class_names, data.label_names, base.templates)
    counts = torch.zeros(now.classes, len(data.label_names), dtype=torch.int64)
    for start in range(0, len(data), how.batch_size):
        images, labels = take(data, range(start, min(start + how.batch_size, len(data))), base)
        with fast(base, how):
            counts += votes(now.on(base).read(images).argmax(dim=1), labels, *counts.shape)
        watch(min(start + how.batch_size, len(data)), len(data), "mapping the labels")
    if how.mapping == "fully-connected" and now.classes < len(data.label_names):
        return counts.argmax(dim=0)  # there are too few classes for one each, and it is only a beginning
    return by_frequency(counts)


def take(data: LabelledImages, rows: Sequence[int], base: ImageClassifier) -> tuple[Images, torch.Tensor]:
    """Images, float in [0, 1], and labels of these rows, on the base's device."""
    images = as_float(data.images[list(rows)]).to(base.device)
    return images, torch.tensor([data.labels[row] for row in rows], device=base.device)


def fast(base: ImageClassifier, how: VisualPrompting) -> torch.autocast:
    """The precision in which a run computes."""
    return torch.autocast(base.device.type, torch.bfloat16, enabled=how.precision == "bfloat16")
