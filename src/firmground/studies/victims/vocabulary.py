"""The words of victims that read or write: one number a word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAD, END, UNKNOWN = 0, 1, 2
_FRAME = ("", "<end>", "<unknown>")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Words in alphabetical order, numbered from 3: 0 pads, 1 ends a text, 2 is any other word."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """All words of some texts."""
        return cls(words=tuple(sorted({word for text in texts for word in split(text)})))

    def __len__(self) -> int:
        return len(_FRAME) + len(self.words)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, start=len(_FRAME))}

    def ids(self, text: str) -> list[int]:
        """The numbers of a text's words, and the end."""
        return [*(self._numbers.get(word, UNKNOWN) for word in split(text)), END]

    def text(self, ids: Iterable[int]) -> str:
        """The words of numbers up to the end, with spaces between them."""
        found: list[str] = []
        for number in ids:
            if number == END:
                break
            if number >= len(_FRAME):
                found.append(self.words[number - len(_FRAME)])
        return " ".join(found)


NOTHING = Vocabulary(words=())


def split(text: str) -> list[str]:
    """Words in small letters; punctuation is left out."""
    return re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())


def padded(texts: Sequence[Sequence[Sequence[int]]]) -> torch.Tensor:
    """Numbers of texts as (rows, most texts, longest), int64, padded with 0."""
    most = max(len(own) for own in texts)
    longest = max(len(ids) for own in texts for ids in own)
    found = torch.zeros(len(texts), most, longest, dtype=torch.int64)
    for row, own in enumerate(texts):
        for place, ids in enumerate(own):
            found[row, place, : len(ids)] = torch.tensor(ids)
    return found
