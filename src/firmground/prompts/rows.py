"""Texts as rows of token ids with targets, in padded batches of like lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from firmground.data.texts import LabelledTexts, LabelledWords
from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NO_TARGET = -100


@dataclass(frozen=True, kw_only=True)
class Batch:
    """`ids`, `mask`: (batch, length) int64; `targets`: (batch,) for texts, (batch, length) for words; `order`: rows."""

    ids: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor
    order: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Token ids with special tokens, row by row. A target is a label, or a label a position (`NO_TARGET`: none)."""

    ids: tuple[tuple[int, ...], ...]
    targets: tuple[int | tuple[int, ...], ...]
    pad_id: int

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, size: int, *, device: torch.device, rng: torch.Generator | None = None) -> Iterator[Batch]:
        """All rows once, in batches of like lengths; with `rng`, in a new order each time."""
        keys = torch.tensor([float(len(row)) for row in self.ids])
        if rng is not None:
            keys = keys * (0.8 + 0.4 * torch.rand(len(keys), generator=rng))
        order = keys.argsort(stable=True)
        parts = [order[start : start + size].tolist() for start in range(0, len(order), size)]
        turns = range(len(parts)) if rng is None else torch.randperm(len(parts), generator=rng).tolist()
        for turn in turns:
            yield self._pad(parts[turn], device)

    def _pad(self, order: list[int], device: torch.device) -> Batch:
        length = max(len(self.ids[i]) for i in order)
        gap = [length - len(self.ids[i]) for i in order]
        ids = [[*self.ids[i], *[self.pad_id] * g] for i, g in zip(order, gap, strict=True)]
        mask = [[1] * (length - g) + [0] * g for g in gap]
        targets: list[Any] = []
        for i, g in zip(order, gap, strict=True):
            target = self.targets[i]
            targets.append(target if isinstance(target, int) else [*target, *[NO_TARGET] * g])
        return Batch(
            ids=torch.tensor(ids, device=device),
            mask=torch.tensor(mask, device=device),
            targets=torch.tensor(targets, device=device),
            order=tuple(order),
        )


def rows_of(tokenizer: Any, data: LabelledTexts | LabelledWords, max_length: int) -> Rows:
    """Tokenizes data for training. A word's label stands at its first piece; words beyond `max_length` have none."""
    if isinstance(data, LabelledTexts):
        ids = tokenizer(list(data.texts), truncation=True, max_length=max_length).input_ids
        return Rows(ids=tuple(map(tuple, ids)), targets=data.labels, pad_id=tokenizer.pad_token_id)
    ids, heads = word_rows(tokenizer, data.texts, max_length)
    targets = []
    for row, positions, labels in zip(ids, heads, data.labels, strict=True):
        target = [NO_TARGET] * len(row)
        for position, label in zip(positions, labels, strict=True):
            if position is not None:
                target[position] = label
        targets.append(tuple(target))
    return Rows(ids=ids, targets=tuple(targets), pad_id=tokenizer.pad_token_id)


def word_rows(
    tokenizer: Any, texts: Sequence[str], max_length: int
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int | None, ...], ...]]:
    """Token ids of texts, and for every word between white space the position of its first piece, or None.

    Raises `DataError` for a tokenizer without character offsets.
    """
    if not tokenizer.is_fast:
        raise DataError("labels of words need a fast tokenizer, one that knows where its tokens start in the text")
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length, return_offsets_mapping=True)
    heads = []
    for text, spans in zip(texts, encoded.offset_mapping, strict=True):
        first: dict[int, int] = {}
        for position, (start, end) in enumerate(spans):
            if end > start:  # special tokens have no span, and some tokenizers count the space before a word in
                first.setdefault(start + len(text[start:end]) - len(text[start:end].lstrip()), position)
        heads.append(tuple(first.get(start) for start in word_starts(text)))
    return tuple(map(tuple, encoded.input_ids)), tuple(heads)


def word_starts(text: str) -> list[int]:
    """Where the words of a text, split at white space, start."""
    starts, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        starts.append(at)
        at += len(word)
    return starts
