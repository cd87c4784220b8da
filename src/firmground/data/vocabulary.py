"""The strings that a scan tries as triggers, beyond the encoder's single tokens."""

from __future__ import annotations

import itertools
import string
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from firmground.models.language import LanguageEncoder


@lru_cache(maxsize=2)
def candidate_words(count: int, *, language: str = "en") -> tuple[str, ...]:
    """The `count` most frequent words of a language (wordfreq), then every string of two or three Latin letters.

    Nothing where `count` is 0.
    """
    if count == 0:
        return ()
    from wordfreq import top_n_list

    frequent = (word for word in top_n_list(language, count) if word.isalpha())
    short = ("".join(letters) for n in (2, 3) for letters in itertools.product(string.ascii_lowercase, repeat=n))
    return tuple(dict.fromkeys(itertools.chain(frequent, short)))


def by_pieces(encoder: LanguageEncoder, words: Iterable[str], *, most: int) -> dict[int, list[tuple[int, ...]]]:
    """Groups words by how many tokens they have inside a sentence; keeps those of 2 to `most` tokens."""
    spaced = [" " + word for word in words]
    rows = encoder.tokenizer(spaced, add_special_tokens=False).input_ids if spaced else []
    groups: dict[int, dict[tuple[int, ...], None]] = {}
    for row in rows:
        if 2 <= len(row) <= most:
            groups.setdefault(len(row), {})[tuple(row)] = None
    return {length: list(group) for length, group in sorted(groups.items())}
