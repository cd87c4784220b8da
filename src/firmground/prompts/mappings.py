"""Label mappings: which of a frozen classifier's classes stands for which label of the data.

Index, frequency and iterated mapping as in Chen et al., "Understanding and Improving Visual Prompting", CVPR 2023
(arXiv 2211.11635): one class a label, by the count matrix N[class, label] and greedily from its largest entry. Semantic
and fully connected mapping as in Tsao et al., "AutoVP", ICLR 2024 (arXiv 2310.08381). Departs from AutoVP: the semantic
mapping takes each class once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import torch

from firmground.errors import DataError
from firmground.models.classifiers import embed_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.dual import DualEncoder

MappingKind: TypeAlias = Literal["index", "frequency", "iterated", "semantic", "fully-connected"]
KINDS: tuple[str, ...] = get_args(MappingKind)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelMapping:
    """From a classifier's logits, (batch, classes), to those of labels, (batch, labels).

    `sources[label]` is the class whose logit is the label's, (labels,) int64; or, fully connected, the labels' logits
    are logits @ weight.T + bias, with `weight` (labels, classes) and `bias` (labels,). Raises `DataError` for others.
    """

    kind: MappingKind
    classes: int
    sources: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"expected a label mapping among {', '.join(KINDS)}, got {self.kind!r}")
        if self.kind == "fully-connected":
            self._check_linear()
        else:
            self._check_sources()

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of labels, (batch, labels)."""
        if logits.ndim != 2 or logits.shape[1] != self.classes:
            raise DataError(f"this mapping reads the logits of {self.classes} classes, got {tuple(logits.shape)}")
        if self.sources is not None:
            return logits[:, self.sources.to(logits.device)]
        assert self.weight is not None
        assert self.bias is not None
        return logits @ self.weight.to(logits).T + self.bias.to(logits)

    @property
    def labels(self) -> int:
        """How many labels there are."""
        found = self.weight if self.sources is None else self.sources
        return 0 if found is None else len(found)

    def _check_sources(self) -> None:
        if self.sources is None or self.weight is not None or self.bias is not None:
            raise DataError(f"a mapping by {self.kind} names one class for each label, and nothing else")
        if self.sources.ndim != 1 or self.sources.dtype != torch.int64 or len(self.sources) < 2:
            raise DataError(f"a mapping by {self.kind} needs whole numbers, one for each of two or more labels")
        outside = self.sources[(self.sources < 0) | (self.sources >= self.classes)]
        if len(outside):
            raise DataError(f"the mapping names class {int(outside[0])}, and the classifier has {self.classes}")

    def _check_linear(self) -> None:
        if self.weight is None or self.bias is None or self.sources is not None:
            raise DataError("a fully connected mapping has a weight and a bias, and nothing else")
        if self.weight.ndim != 2 or self.weight.shape[1] != self.classes or self.bias.shape != self.weight.shape[:1]:
            raise DataError(
                f"a fully connected mapping from {self.classes} classes has a weight (labels, {self.classes}) and a "
                f"bias (labels,), got {tuple(self.weight.shape)} and {tuple(self.bias.shape)}"
            )
        if not (self.weight.detach().isfinite().all() and self.bias.detach().isfinite().all()):
            raise DataError("the label mapping holds values that are not finite numbers")


def by_index(classes: int, labels: int) -> torch.Tensor:
    """The first classes in their order, (labels,)."""
    _check_room(classes, labels)
    return torch.arange(labels)


def votes(predicted: torch.Tensor, labels: torch.Tensor, classes: int, count: int) -> torch.Tensor:
    """The count matrix N, (classes, count) int64: how often images of each label are taken for each class."""
    cells = predicted.cpu() * count + labels.cpu()
    return torch.bincount(cells, minlength=classes * count).view(classes, count)


def by_frequency(counts: torch.Tensor) -> torch.Tensor:
    """The class that images of each label are most often taken for, (labels,), each class once.

    Greedy from the largest entry of `counts`, (classes, labels), on; of equal ones the class of the smaller number.
    """
    return _greedy(counts)


def by_meaning(
    encoder: DualEncoder, class_names: Sequence[str], label_names: Sequence[str], templates: Sequence[str]
) -> torch.Tensor:
    """The class whose name means most like each label's to a text tower, (labels,), each class once."""
    ours, theirs = (embed_names(encoder, names, templates) for names in (label_names, class_names))
    return _greedy((theirs @ ours.T).float().cpu())


def _greedy(scores: torch.Tensor) -> torch.Tensor:
    classes, labels = scores.shape
    _check_room(classes, labels)
    found, taken = torch.full((labels,), -1), set()
    for cell in scores.flatten().argsort(descending=True, stable=True).tolist():
        source, label = divmod(cell, labels)
        if found[label] < 0 and source not in taken:
            found[label] = source
            taken.add(source)
            if len(taken) == labels:
                break
    return found


def _check_room(classes: int, labels: int) -> None:
    if labels > classes:
        raise DataError(
            f"the data has {labels} labels and the classifier only {classes} classes; map them fully connected"
        )
