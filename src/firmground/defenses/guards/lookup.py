"""Finds recovered triggers in token ids: exact, and so cheap that every batch can afford it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from firmground.defenses.guards.words import Gram, normal, words_of

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A trigger to look for: its text, and the rows of token ids that it becomes (with and without a space, say)."""

    text: str
    rows: tuple[tuple[int, ...], ...]


def watched(tokenizer: Any, text: str, token_ids: Sequence[int]) -> Watched:
    """All rows of token ids that a trigger's text becomes: alone, after a space, between words."""
    rows = [tuple(tokenizer(form, add_special_tokens=False).input_ids) for form in (text, f" {text}")]
    return Watched(text=text, rows=tuple(dict.fromkeys([tuple(token_ids), *(row for row in rows if row)])))


def hits(ids: torch.Tensor, triggers: Sequence[Watched]) -> torch.Tensor:
    """Which rows of ids, (batch, length), hold any of the triggers: (batch,), bool."""
    found = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    rows = {row for trigger in triggers for row in trigger.rows}
    if single := [row[0] for row in rows if len(row) == 1]:
        found |= torch.isin(ids, torch.tensor(single, device=ids.device)).any(1)
    for row in rows:
        if 1 < len(row) <= ids.shape[1]:
            windows = ids.unfold(1, len(row), 1)
            found |= (windows == torch.tensor(row, device=ids.device)).all(-1).any(1)
    return found


def grams_of(tokenizer: Any, text: str, triggers: Sequence[Watched]) -> set[Gram]:
    """The words of a text that hold the triggers, as grams to delete; more than one word for a phrase."""
    if not tokenizer.is_fast:
        return {tuple(word.form for word in words_of(normal(trigger.text))) for trigger in triggers}
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, spans = list(encoded.input_ids), encoded.offset_mapping
    words = words_of(text)
    found: set[Gram] = set()
    for row in {row for trigger in triggers for row in trigger.rows}:
        for i in range(len(ids) - len(row) + 1):
            if tuple(ids[i : i + len(row)]) == row:
                start, end = spans[i][0], spans[i + len(row) - 1][1]
                found.add(tuple(word.form for word in words if word.start < end and word.end > start))
    return found - {()}
