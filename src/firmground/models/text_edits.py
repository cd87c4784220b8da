"""Small edits of texts, as contrastive learning of texts augments them.

Wei and Zou, "EDA: Easy Data Augmentation Techniques", EMNLP 2019, arXiv 1901.11196: each text undergoes one of four
operations at a rate of its words. Departs from the paper: there is no WordNet here, so synonyms come from a table, by
default that of `data.scenes` (names of shapes); a text with no word of the table has a word repeated where EDA would
insert a synonym, and two words swapped where it would replace one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from firmground.data.scenes.words import SYNONYMS
from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def edit_texts(
    texts: Sequence[str],
    *,
    rng: torch.Generator,
    rate: float = 0.1,
    synonyms: Mapping[str, Sequence[str]] = SYNONYMS,
) -> list[str]:
    """Each text after one operation, drawn for it, on `rate` of its words and on one at least."""
    if not 0 < rate <= 1:
        raise DataError(f"expected a rate of edits above 0 and at most 1, got {rate}")
    operations = (_replaced, _inserted, _swapped, _deleted)
    chosen = torch.randint(len(operations), (len(texts),), generator=rng).tolist()
    edited = []
    for text, number in zip(texts, chosen, strict=True):
        words = text.split()
        times = max(1, int(rate * len(words)))
        edited.append(" ".join(operations[number](words, times, synonyms, rng)) if len(words) > 1 else text)
    return edited


def _draw(below: int, rng: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=rng))


def _known(words: list[str], synonyms: Mapping[str, Sequence[str]]) -> list[int]:
    return [place for place, word in enumerate(words) if word.lower() in synonyms]


def _synonym(word: str, synonyms: Mapping[str, Sequence[str]], rng: torch.Generator) -> list[str]:
    options = synonyms[word.lower()]
    return options[_draw(len(options), rng)].split()


def _replaced(words: list[str], times: int, synonyms: Mapping[str, Sequence[str]], rng: torch.Generator) -> list[str]:
    places = _known(words, synonyms)
    if not places:
        return _swapped(words, times, synonyms, rng)
    picked = {places[i] for i in torch.randperm(len(places), generator=rng)[:times].tolist()}
    parts = [_synonym(word, synonyms, rng) if place in picked else [word] for place, word in enumerate(words)]
    return [word for part in parts for word in part]


def _inserted(words: list[str], times: int, synonyms: Mapping[str, Sequence[str]], rng: torch.Generator) -> list[str]:
    longer, places = list(words), _known(words, synonyms)
    for _ in range(times):
        if places:
            new = _synonym(words[places[_draw(len(places), rng)]], synonyms, rng)
        else:
            new = [words[_draw(len(words), rng)]]
        place = _draw(len(longer) + 1, rng)
        longer[place:place] = new
    return longer


def _swapped(words: list[str], times: int, synonyms: Mapping[str, Sequence[str]], rng: torch.Generator) -> list[str]:
    moved = list(words)
    for _ in range(times):
        one, other = torch.randperm(len(moved), generator=rng)[:2].tolist()
        moved[one], moved[other] = moved[other], moved[one]
    return moved


def _deleted(words: list[str], times: int, synonyms: Mapping[str, Sequence[str]], rng: torch.Generator) -> list[str]:
    lost = set(torch.randperm(len(words), generator=rng)[: min(times, len(words) - 1)].tolist())
    return [word for place, word in enumerate(words) if place not in lost]
