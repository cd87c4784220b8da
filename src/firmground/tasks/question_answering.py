"""Visual question answering: VQA accuracy, by kind of question too.

Antol et al., "VQA: Visual Question Answering", ICCV 2015, as its evaluation code has it: of ten people's answers, a
prediction is right in min(1, n / 3) where n of nine others gave it, averaged over the ten ways to leave one out; here
so for four answers and more. Of one to three answers each is right by itself. Articles, punctuation and case do not
count, and numbers to ten may be words; contractions are left as they are, where the original code repairs them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy

from firmground.errors import DataError
from firmground.tasks.resampling import image_weights, share
from firmground.types import ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from firmground.data.annotated_images import AnnotatedImages, Asked
    from firmground.types import Images, Interval, Watch

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {word: str(value) for value, word in enumerate(NUMBERS)} | {"none": "0"}
ARTICLES = ("a", "an", "the")
FEWEST_VOTES = 4  # from so many answers on, they are votes and not alternatives


class Answerer(Protocol):
    """A victim that answers questions on images."""

    def answer(self, images: Images, questions: Sequence[str]) -> tuple[str, ...]:
        """One answer, a word or a few, for each pair of an image and a question; both are equally many."""


@dataclass(frozen=True, kw_only=True)
class KindScore:
    """The accuracy on the questions of one kind."""

    kind: str
    accuracy: Interval


@dataclass(frozen=True, kw_only=True)
class AnswerResult:
    """VQA accuracy with bootstrap intervals over images (Wilson's at 0 and 1); `count` counts questions.

    `replicates` are accuracies of resampled sets, for `relative_drop`.
    """

    accuracy: Interval
    kinds: tuple[KindScore, ...] = ()
    answers: tuple[tuple[str, ...], ...] = field(repr=False, default=())  # those of each image's questions
    replicates: tuple[float, ...] = field(repr=False, default=())

    @property
    def headline(self) -> Interval:
        return self.accuracy


def evaluate(
    victim: Answerer, data: AnnotatedImages, *, batch_size: int = 32, rng: torch.Generator, watch: Watch = ignore
) -> AnswerResult:
    """Measures a victim on images with questions, `batch_size` pairs at a time; `rng` draws the bootstrap.

    Raises `DataError` where the data has no question, or the victim does not answer each.
    """
    if data.questions is None or not any(data.questions):
        raise DataError("question answering needs questions, which these images lack")
    answers: list[list[str]] = [[] for _ in range(len(data))]
    waiting: list[tuple[int, Asked]] = []
    for row in range(len(data)):
        for asked in data.questions[row]:
            if waiting and (len(waiting) == batch_size or data.sizes[row] != data.sizes[waiting[0][0]]):
                _answered(victim, data, waiting, answers)
                waiting = []
            waiting.append((row, asked))
        watch(row + 1, len(data), "answering")
    if waiting:
        _answered(victim, data, waiting, answers)
    return _summary(data.questions, answers, rng)


def accuracy(answer: str, asked: Asked) -> float:
    """How right an answer is, in [0, 1]."""
    said, right = plain(answer), [plain(text) for text in asked.answers]
    if len(right) < FEWEST_VOTES:
        return float(said in right)
    agreed = right.count(said)
    votes = [min(1.0, (agreed - (one == said)) / 3) for one in right]
    return sum(votes) / len(votes)


def plain(answer: str) -> str:
    """An answer in small letters, without articles and punctuation, numbers as digits.

    >>> plain("The Cat, and two dogs!")
    'cat and 2 dogs'
    """
    words = re.sub(r"(?<!\d)[.,](?!\d)|[^\w\s.,']", " ", answer.lower().replace("_", " ")).split()
    return " ".join(DIGITS.get(word, word) for word in words if word not in ARTICLES)


def _answered(
    victim: Answerer, data: AnnotatedImages, pairs: Sequence[tuple[int, Asked]], answers: list[list[str]]
) -> None:
    import torch

    rows = [row for row, _ in pairs]
    pictures = {row: data.image(row) for row in dict.fromkeys(rows)}
    said = victim.answer(torch.stack([pictures[row] for row in rows]), [asked.text for _, asked in pairs])
    if len(said) != len(pairs):
        raise DataError(f"the victim gave {len(said)} answers to {len(pairs)} questions; it must give one each")
    for row, text in zip(rows, said, strict=True):
        answers[row].append(text)


def _summary(
    questions: Sequence[Sequence[Asked]], answers: Sequence[Sequence[str]], rng: torch.Generator
) -> AnswerResult:
    weights = image_weights(len(questions), rng)
    scores = [
        [accuracy(text, asked) for text, asked in zip(said, own, strict=True)]
        for said, own in zip(answers, questions, strict=True)
    ]

    def rate(kind: str | None) -> tuple[Interval, numpy.ndarray]:
        """The accuracy of the questions of a kind, of all for None, with its interval and replicates."""
        chosen = [
            [score for score, asked in zip(row, own, strict=True) if kind is None or asked.kind == kind]
            for row, own in zip(scores, questions, strict=True)
        ]
        return share(
            numpy.array([sum(row) for row in chosen], dtype=float),
            numpy.array([len(row) for row in chosen], dtype=float),
            weights,
        )

    kinds = sorted({asked.kind for own in questions for asked in own} - {""})
    overall, replicates = rate(None)
    return AnswerResult(
        accuracy=overall,
        kinds=tuple(KindScore(kind=kind, accuracy=rate(kind)[0]) for kind in kinds),
        answers=tuple(tuple(said) for said in answers),
        replicates=tuple(replicates.tolist()),
    )
