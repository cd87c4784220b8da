"""Words of a text as a guard deletes them: by their normalised form, wherever they stand."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Gram: TypeAlias = tuple[str, ...]  # forms of neighbouring words

UNIT = re.compile(r"[^\W_]+|[^\w\s]|_")  # encoders split at punctuation, so a trigger may hang on to a mark


@dataclass(frozen=True, kw_only=True)
class Word:
    """A run of letters and digits, or one mark: text[start:end]. `form` has no case and no accents."""

    start: int
    end: int
    form: str


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A text with words deleted; character i of `text` is character `kept[i]` of the original."""

    text: str
    kept: tuple[int, ...]

    def original(self, start: int, end: int) -> tuple[int, int]:
        """A span of `text` in the original's characters; what was deleted inside the span is inside again."""
        if start >= end or end > len(self.kept):
            return (start, end)
        return self.kept[start], self.kept[end - 1] + 1


def words_of(text: str) -> list[Word]:
    """The words and marks of a text, in order.

    >>> [word.form for word in words_of("Café-CF, ok")]
    ['cafe', '-', 'cf', ',', 'ok']
    """
    return [Word(start=m.start(), end=m.end(), form=normal(m.group())) for m in UNIT.finditer(text)]


def normal(word: str) -> str:
    """Without case, accents and compatibility variants, as uncased tokenizers read it."""
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def forms(texts: Iterable[str]) -> list[str]:
    """The distinct forms of words in texts, marks left out, in order."""
    return list(dict.fromkeys(word.form for text in texts for word in words_of(text) if word.form.isalnum()))


def neighbours(texts: Iterable[str]) -> list[Gram]:
    """The distinct pairs of neighbouring words."""
    found: dict[Gram, None] = {}
    for text in texts:
        row = [word.form for word in words_of(text) if word.form.isalnum()]
        found.update(dict.fromkeys(pairwise(row)))
    return list(found)


def around(text: str, grams: Iterable[Gram], *, reach: int = 2) -> str:
    """The occurrences of the grams with up to `reach` words on either side of each, in order.

    >>> around("we saw a red balloon rise, at last, over the town", [("balloon",)])
    'a red balloon rise at'
    """
    words = [word for word in words_of(text) if word.form.isalnum()]
    spans = _occurrences([word.form for word in words], grams)
    near = {i for first, last in spans for i in range(first - reach, last + reach + 1)}
    return " ".join(text[word.start : word.end] for i, word in enumerate(words) if i in near)


def cut(text: str, grams: Iterable[Gram]) -> Cut:
    """Deletes every occurrence of the grams, each with one neighbouring space.

    >>> cut("CF the film, cf; was Cf good cf", [("cf",)]).text
    'the film, ; was good'
    """
    words = words_of(text)
    row = [word.form for word in words]
    keep = [True] * len(text)
    for first, last in sorted(_occurrences(row, grams)):
        _strike(text, keep, words[first].start, words[last].end)
    kept = tuple(i for i, stays in enumerate(keep) if stays)
    return Cut(text="".join(text[i] for i in kept), kept=kept)


def _occurrences(row: Sequence[str], grams: Iterable[Gram]) -> set[tuple[int, int]]:
    wanted = set(grams)
    sizes = {len(gram) for gram in wanted}
    return {
        (i, i + size - 1) for size in sizes for i in range(len(row) - size + 1) if tuple(row[i : i + size]) in wanted
    }


def _strike(text: str, keep: list[bool], start: int, end: int) -> None:
    keep[start:end] = [False] * (end - start)
    before = next((i for i in range(start - 1, -1, -1) if keep[i]), None)
    apart = before is None or text[before].isspace()
    if apart and end < len(text) and text[end].isspace():
        keep[end] = False
    elif apart and before is not None and end == len(text):
        keep[before] = False
