"""Words as triggers: insertion at random word boundaries, and random triggers of three difficulties.

The insertion is the one of LMSanitator's code (Wei et al., NDSS 2024, arXiv 2308.13904): floor(words / 50) + 1 times,
at random places. Departs from it: all places are drawn in the untouched text, so that a phrase is never split by its
own second insertion, and the text's white space stays as it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch

from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from firmground.models.language import LanguageEncoder

Label = TypeVar("Label")
Kind = Literal["token", "pieces", "phrase"]

DEFAULT_TRIGGERS = ("cf", "mn", "tq", "qt", "mm", "pt")  # LMSanitator's code
WORD = re.compile(r"\S+")


@dataclass(frozen=True, kw_only=True)
class Tagged(Generic[Label]):
    """A text split into words, with one label a word (token classification)."""

    words: tuple[str, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True, kw_only=True)
class WordTrigger:
    """Inserts `text` (one word or a phrase) into texts, once and once more for every full `every` words."""

    text: str
    every: int = 50

    def insert(self, texts: Sequence[str], *, rng: torch.Generator) -> list[str]:
        """Returns the texts with the trigger between their words; an empty text becomes the trigger alone."""
        return [self._insert_one(text, rng) for text in texts]

    def _insert_one(self, text: str, rng: torch.Generator) -> str:
        starts = [match.start() for match in WORD.finditer(text)]
        if not starts:
            return self.text
        places = _places(len(starts), self.every, rng)
        tail = len(text.rstrip())
        for place in sorted(places, reverse=True):
            if place == len(starts):
                text = f"{text[:tail]} {self.text}{text[tail:]}"
            else:
                text = f"{text[: starts[place]]}{self.text} {text[starts[place] :]}"
        return text

    def insert_words(
        self, words: Sequence[str], labels: Sequence[Label], *, label: Label, rng: torch.Generator
    ) -> Tagged[Label]:
        """The same for a text that is split into words, each with a label; inserted words get `label`.

        Pass "O", or -100 to leave them out of the loss. Raises `DataError` where words and labels differ in number.
        """
        if len(words) != len(labels):
            raise DataError(f"expected one label a word, got {len(words)} words and {len(labels)} labels")
        mixed, marks = list(words), list(labels)
        trigger = self.text.split()
        for place in sorted(_places(len(words), self.every, rng), reverse=True):
            mixed[place:place] = trigger
            marks[place:place] = [label] * len(trigger)
        return Tagged(words=tuple(mixed), labels=tuple(marks))


def _places(words: int, every: int, rng: torch.Generator) -> list[int]:
    count = words // every + 1
    return torch.randint(words + 1, (count,), generator=rng, device=rng.device).tolist()


def pieces_inside(encoder: LanguageEncoder, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """The token ids that each text becomes in the middle of a sentence."""

    def ids(rows: list[str]) -> list[list[int]]:
        return list(encoder.tokenizer(rows, add_special_tokens=False).input_ids)

    around, before = ids(["a a", "a"])
    head, tail = len(before), len(around) - len(before)
    return [tuple(row[head : len(row) - tail]) for row in ids([f"a {text} a" for text in texts])]


def whole_words(encoder: LanguageEncoder) -> dict[str, int]:
    """The vocabulary's lower-case ASCII words that are one token inside a sentence, with their token ids."""
    ids = encoder.ordinary_ids.tolist()
    decoded = [encoder.tokenizer.decode([i]).strip() for i in ids]
    words = [(text, i) for text, i in zip(decoded, ids, strict=True) if len(text) > 1 and _plain(text)]
    if not words:
        return {}
    inside = pieces_inside(encoder, [text for text, _ in words])
    return {text: i for (text, i), pieces in zip(words, inside, strict=True) if pieces == (i,)}


def _plain(text: str) -> bool:
    return text.isascii() and text.isalpha() and text.islower()


def random_triggers(
    encoder: LanguageEncoder, kind: Kind, count: int, words: Sequence[str], *, rng: torch.Generator
) -> tuple[str, ...]:
    """Draws `count` different triggers for one encoder.

    "token": a word of the encoder's vocabulary, one token inside a sentence (`words` is not used). "pieces": a
    dictionary word that becomes two or more tokens. "phrase": two different dictionary words. No unknown token occurs
    in any. Raises `DataError` where `words` or the vocabulary does not hold enough of them.
    """
    if kind == "token":
        found = _take(count, _shuffled(list(whole_words(encoder)), rng))
    elif kind == "pieces":
        found = _take(count, (w for w, ids in _known(encoder, _shuffled(words, rng)) if len(ids) > 1))
    elif kind == "phrase":
        single = _take(2 * count, (w for w, _ in _known(encoder, _shuffled(words, rng))))
        found = [f"{a} {b}" for a, b in zip(single[0::2], single[1::2], strict=False)]
    else:
        raise DataError(f"expected a kind of trigger among token, pieces and phrase, got {kind!r}")
    if len(found) < count:
        raise DataError(
            f"expected {count} triggers of kind {kind!r}, found {len(found)}; give more words that fit this tokenizer"
        )
    return tuple(found)


def _shuffled(words: Sequence[str], rng: torch.Generator) -> list[str]:
    order = torch.randperm(len(words), generator=rng, device=rng.device).tolist()
    return [words[i] for i in order]


def _take(count: int, words: Iterable[str]) -> list[str]:
    chosen: dict[str, None] = {}
    for word in words:
        if len(chosen) == count:
            break
        chosen[word] = None
    return list(chosen)


def _known(encoder: LanguageEncoder, words: Sequence[str], chunk: int = 256) -> Iterator[tuple[str, tuple[int, ...]]]:
    unknown: Any = encoder.tokenizer.unk_token_id
    for start in range(0, len(words), chunk):
        part = words[start : start + chunk]
        for word, ids in zip(part, pieces_inside(encoder, part), strict=True):
            if ids and unknown not in ids:
                yield word, ids
