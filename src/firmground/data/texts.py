"""Labelled texts and labelled words: what tasks are made of, and how they are split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class LabelledTexts:
    """Texts with one label each; `labels` index `label_names`. `skipped` counts empty texts that a reader left out."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    skipped: int = 0

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels):
            raise DataError(f"expected one label a text, got {len(self.texts)} texts and {len(self.labels)} labels")
        _check_labels(self.labels, self.label_names)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def strata(self) -> tuple[int, ...]:
        """The label of every row: splits keep their shares."""
        return self.labels

    def select(self, rows: Sequence[int]) -> LabelledTexts:
        """The given rows, in the given order."""
        return LabelledTexts(
            texts=tuple(self.texts[i] for i in rows),
            labels=tuple(self.labels[i] for i in rows),
            label_names=self.label_names,
        )


@dataclass(frozen=True, kw_only=True)
class LabelledWords:
    """Sentences as words with one label a word; `labels` index `label_names`, which are IOB2 tags ("O", "B-place")."""

    words: tuple[tuple[str, ...], ...]
    labels: tuple[tuple[int, ...], ...]
    label_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.words) != len(self.labels):
            raise DataError(f"expected labels for {len(self.words)} sentences, got them for {len(self.labels)}")
        for row, (words, labels) in enumerate(zip(self.words, self.labels, strict=True)):
            if len(words) != len(labels):
                raise DataError(f"sentence {row} has {len(words)} words and {len(labels)} labels; it needs one a word")
            if any(not word or word.split() != [word] for word in words):
                raise DataError(f"sentence {row} has a word that is empty or holds white space: {words}")
            _check_labels(labels, self.label_names)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def texts(self) -> tuple[str, ...]:
        """The sentences, words joined by one space."""
        return tuple(" ".join(words) for words in self.words)

    @property
    def strata(self) -> tuple[int, ...]:
        """All rows alike: sentences have no single label to keep the shares of."""
        return (0,) * len(self)

    def select(self, rows: Sequence[int]) -> LabelledWords:
        """The given rows, in the given order."""
        return LabelledWords(
            words=tuple(self.words[i] for i in rows),
            labels=tuple(self.labels[i] for i in rows),
            label_names=self.label_names,
        )


Rows = TypeVar("Rows", LabelledTexts, LabelledWords)


def split(data: Rows, share: float, rng: torch.Generator) -> tuple[Rows, Rows]:
    """Splits into (`share` of the rows, the rest) at random, label by label, so that both keep the label shares.

    Every label with two rows or more is in both parts. The same `rng` state gives the same parts.
    """
    if not 0 < share < 1:
        raise DataError(f"the share of a split must lie between 0 and 1, got {share}")
    first: list[int] = []
    rest: list[int] = []
    for label in sorted(set(data.strata)):
        rows = [i for i, other in enumerate(data.strata) if other == label]
        order = [rows[i] for i in torch.randperm(len(rows), generator=rng).tolist()]
        cut = min(max(round(share * len(order)), 1), max(len(order) - 1, 1))
        first += order[:cut]
        rest += order[cut:]
    if not rest:
        raise DataError(f"{len(data)} rows are too few to split; add rows")
    return data.select(sorted(first)), data.select(sorted(rest))


def sample(data: Rows, count: int, rng: torch.Generator) -> Rows:
    """`count` rows at random without repeats, or all where there are fewer."""
    return data.select(sorted(torch.randperm(len(data), generator=rng)[:count].tolist()))


def _check_labels(labels: Sequence[int], names: Sequence[str]) -> None:
    outside = [label for label in labels if not 0 <= label < len(names)]
    if outside:
        raise DataError(f"label {outside[0]} has no name; there are {len(names)} label names: {', '.join(names)}")
