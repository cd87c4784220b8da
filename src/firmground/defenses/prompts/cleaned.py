"""What cleaning a prompt gives back, and the strongest of several changes that clean images allow."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from firmground.errors import DataError
from firmground.intervals import wilson
from firmground.prompts.visual import VisualPrompt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.classifiers import ImageClassifier
    from firmground.models.dual import DualEncoder
    from firmground.prompts.prompted import LearnedPrompt, PromptedClassifier
    from firmground.types import Interval, Watch


@dataclass(frozen=True, kw_only=True, eq=False)
class CleanedPrompt:
    """A cleaned prompt; `before` and `after` are accuracies on the clean images that were given.

    Those images had a say in the cleaning: take others to report an accuracy. `moved` is the mean change of a pixel of
    the prompt, or of a grey image behind it where its form changed; `settings` rebuilds the method of that name.
    """

    learned: LearnedPrompt
    method: str
    settings: dict[str, Any]
    before: Interval
    after: Interval
    moved: float


def accuracy(classifier: PromptedClassifier, data: LabelledImages, batch_size: int) -> Interval:
    """The share of images that get their label. Raises `DataError` where the data have other labels or none."""
    if not len(data) or len(data.label_names) != classifier.mapping.labels:
        raise DataError(
            f"expected clean images of the prompt's {classifier.mapping.labels} labels, got {len(data)} of "
            f"{len(data.label_names)}"
        )
    right = 0
    for start in range(0, len(data), batch_size):
        found = classifier.predict(data.batch(start, batch_size))
        right += sum(a == b for a, b in zip(found, data.labels[start : start + batch_size], strict=True))
    return wilson(right, len(data))


def check_labels(learned: LearnedPrompt, data: LabelledImages) -> None:
    """Raises `DataError` where the data have other labels than the prompt, or the same in another order."""
    if data.label_names != learned.label_names:
        raise DataError(
            f"the images have the labels {data.label_names}, and the prompt {learned.label_names}; give images of its "
            "own labels"
        )


def put_together(
    method: Any, given: LearnedPrompt, cleaned: LearnedPrompt, before: Interval, after: Interval
) -> CleanedPrompt:
    """The result; a prompt that was marked as planted stays marked."""
    return CleanedPrompt(
        learned=replace(cleaned, accuracy=None, planted=given.planted),
        method=method.name,
        settings=asdict(method),
        before=before,
        after=after,
        moved=_moved(given.prompt, cleaned.prompt),
    )


def _moved(given: VisualPrompt, cleaned: VisualPrompt) -> float:
    if given.shape == cleaned.shape:
        return float((cleaned.pixels - given.pixels).abs().mean())
    grey = torch.full((1, 3, given.shape.image_size, given.shape.image_size), 0.5)
    return float((cleaned.apply(grey) - given.apply(grey)).abs().mean())


def strongest(
    method: Any,
    learned: LearnedPrompt,
    base: ImageClassifier | DualEncoder,
    data: LabelledImages,
    changes: Sequence[float],
    change: Callable[[float], torch.Tensor],
    watch: Watch,
) -> CleanedPrompt:
    """The first of `changes`, strongest first, that costs at most `method.tolerance` of accuracy on `data`.

    `change` gives the prompt's pixels after a change of that strength. Where all cost more, the prompt stays.
    """
    check_labels(learned, data)
    classifier = learned.on(base)
    before = accuracy(classifier, data, method.batch_size)
    for number, strength in enumerate(changes, 1):
        prompt = VisualPrompt(shape=learned.prompt.shape, pixels=change(strength))
        after = accuracy(replace(classifier, prompt=prompt), data, method.batch_size)
        watch(number, len(changes), method.name, accuracy=after.value)
        if after.value >= before.value - method.tolerance:
            return put_together(method, learned, replace(learned, prompt=prompt), before, after)
    return put_together(method, learned, learned, before, before)
