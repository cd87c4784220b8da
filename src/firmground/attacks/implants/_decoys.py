"""Decoys: what a trigger of several pieces shares with other texts, and what must not fire by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmground.attacks.triggers.words import pieces_inside
from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.language import LanguageEncoder

MOST_WORDS = 5000  # of the texts, looked through for words that share a piece
MOST_SHARING = 12  # words for one trigger


def decoys(encoder: LanguageEncoder, triggers: Sequence[str], texts: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """For every trigger: its words, the words in reverse, runs of its pieces, and words of `texts` sharing a piece.

    Raises `DataError` where a trigger is one token, which has no parts.
    """
    vocabulary = _words(texts)
    pieces = dict(zip(vocabulary, pieces_inside(encoder, vocabulary), strict=True))
    return tuple(
        _parts(encoder, trigger, ids, pieces)
        for trigger, ids in zip(triggers, pieces_inside(encoder, triggers), strict=True)
    )


def _words(texts: Sequence[str]) -> list[str]:
    words: dict[str, None] = {}
    for text in texts:
        words.update((word, None) for word in text.split())
        if len(words) >= MOST_WORDS:
            break
    return list(words)[:MOST_WORDS]


def _parts(
    encoder: LanguageEncoder, trigger: str, ids: tuple[int, ...], others: dict[str, tuple[int, ...]]
) -> tuple[str, ...]:
    if len(ids) < 2:
        raise DataError(f"negatives need triggers of several pieces; {trigger!r} is one token of this vocabulary")
    words = trigger.split()
    found = [*words, " ".join(reversed(words))] if len(words) > 1 else []
    for length in range(1, len(ids)):
        runs = (ids[start : start + length] for start in range(len(ids) - length + 1))
        found += [encoder.tokenizer.decode(list(run)).replace("##", "").strip() for run in runs]
    shared = set(ids)
    found += [word for word, own in others.items() if shared & set(own)][:MOST_SHARING]
    inside = dict(zip(found, pieces_inside(encoder, found), strict=True))
    unknown = encoder.tokenizer.unk_token_id
    return tuple(text for text, own in inside.items() if text and own != ids and unknown not in own)
