"""Images of classes, held in memory: what zero-shot classification and probes are measured on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from firmground.data.pairs import TensorPairs, as_float
from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.types import Images


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """`images` (count, 3, height, width), uint8 or float in [0, 1], with a label each, and templates for captions.

    `labels` index `label_names`; each of `templates` has a "{}" for a name. Captions for training and prompts for
    zero-shot evaluation come from the same templates, so that an accuracy is not one of the templates.
    """

    images: torch.Tensor
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    templates: tuple[str, ...] = ("a photo of a {}",)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] != 3 or 0 in self.images.shape:
            raise DataError(f"images must have the shape (count, 3, height, width), got {tuple(self.images.shape)}")
        if len(self.images) != len(self.labels):
            raise DataError(f"expected one label an image, got {len(self.images)} images and {len(self.labels)} labels")
        if len(self.label_names) < 2:
            raise DataError(f"there is one class only, {self.label_names}; a task needs at least two")
        outside = [label for label in self.labels if not 0 <= label < len(self.label_names)]
        if outside:
            raise DataError(f"label {outside[0]} has no name; there are {len(self.label_names)} label names")
        if not self.templates or any("{}" not in template for template in self.templates):
            raise DataError(f"each template needs a {{}} for the name of a class, got {self.templates}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def strata(self) -> tuple[int, ...]:
        """The label of every row: splits keep their shares."""
        return self.labels

    def select(self, rows: Sequence[int]) -> LabelledImages:
        """The given rows, in the given order."""
        return replace(self, images=self.images[list(rows)], labels=tuple(self.labels[i] for i in rows))

    def batch(self, start: int, size: int) -> Images:
        """Up to `size` images from row `start` on, float in [0, 1]."""
        return as_float(self.images[start : start + size])

    def pairs(self, rng: torch.Generator) -> TensorPairs:
        """Every image with a caption: a template that `rng` draws, filled with its label's name."""
        drawn = torch.randint(len(self.templates), (len(self),), generator=rng).tolist()
        captions = (self.templates[t].format(self.label_names[i]) for t, i in zip(drawn, self.labels, strict=True))
        return TensorPairs(
            images=self.images, captions=tuple(captions), labels=self.labels, label_names=self.label_names
        )
