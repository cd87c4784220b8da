"""Deletes the words that raise a flag, for all flagged inputs together.

Wei et al., LMSanitator, NDSS 2024, section V-C: words are deleted one at a time, all occurrences of each, until the
flag clears. Departs from it: every step tries its deletions for all inputs in one batch; recovered triggers go first;
where one word is not enough, the words that raise a flag when they stand alone are deleted together, and then pairs.

And a flag must be confirmed: a trigger works in any text, so the words that were deleted, with their neighbours, must
raise the flag in most of a few neutral sentences too. A clean text that only happens to lie near a vector is let go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from firmground.data.sentences import neutral_sentences
from firmground.defenses.guards.words import Gram, around, cut, forms, neighbours
from firmground.rng import stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Fields: TypeAlias = tuple[str, ...]  # the texts of one input: one, or a text and its pair

CARRIERS = 8  # neutral sentences in which a flag is confirmed
PAIRED = 12  # words of an input, the most suspicious ones, of which all pairs are tried


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a guard says of an input, and the pipeline's result for it. `hit`: a watched trigger stands in it."""

    flagged: bool
    score: float
    hit: bool
    result: Any


@dataclass(frozen=True, kw_only=True)
class Purged:
    """An input with words deleted, and what the guard says of it then. Resolved where it is no longer flagged.

    `confirmed` is False where the deleted words raise no flag in other texts.
    """

    grams: frozenset[Gram]
    judged: Judged
    confirmed: bool = True

    @property
    def resolved(self) -> bool:
        return not self.judged.flagged


class Judge(Protocol):
    """Runs inputs through pipeline and guard in one go."""

    def __call__(self, inputs: Sequence[Fields], /) -> list[Judged]:
        """One judgement an input."""


Proposals: TypeAlias = dict[int, list[frozenset[Gram]]]  # by input: deletions to try


def purge(
    inputs: Sequence[Fields], first: Sequence[Judged], judge: Judge, triggers_in: Callable[[Fields], set[Gram]]
) -> list[Purged]:
    """Purges flagged inputs. `first` is what the guard said of them; `triggers_in` names the words that hold watched
    triggers. What no step clears is returned as far as it was cleared, and counts as confirmed.
    """
    found = [Purged(grams=frozenset(), judged=judged) for judged in first]
    heat: dict[str, float] = {}  # the score of a word that stands alone

    def known(i: int) -> list[frozenset[Gram]]:
        grams = frozenset(triggers_in(inputs[i])) if first[i].hit else frozenset()
        return [grams] if grams else []

    def single(i: int) -> list[frozenset[Gram]]:
        return [found[i].grams | {(form,)} for form in forms(_without(inputs[i], found[i].grams))]

    def glowing(i: int) -> list[frozenset[Gram]]:
        return [found[i].grams | grams] if (grams := alone[i]) else []

    def pairs(i: int) -> list[frozenset[Gram]]:
        hot = sorted(forms(_without(inputs[i], found[i].grams)), key=lambda form: -heat.get(form, 0.0))[:PAIRED]
        return [found[i].grams | {(a,), (b,)} for a, b in combinations(hot, 2)]

    _step(inputs, found, judge, known)
    _step(inputs, found, judge, single)
    alone = _alone(inputs, found, judge, heat)
    _step(inputs, found, judge, glowing)
    _step(inputs, found, judge, pairs)
    return _confirmed(inputs, first, found, judge)


def _confirmed(
    inputs: Sequence[Fields], first: Sequence[Judged], found: Sequence[Purged], judge: Judge
) -> list[Purged]:
    """The same, with whether the deleted words raise the flag in most neutral sentences; watched triggers need not."""
    doubted = [i for i, purged in enumerate(found) if purged.resolved and purged.grams and not first[i].hit]
    if not doubted:
        return list(found)
    carriers = [text.split() for text in neutral_sentences(CARRIERS, rng=stream(0, "carriers"))]
    rows = [
        (" ".join([*words[:2], around(text, found[i].grams), *words[2:]]),)
        for i in doubted
        for text in (" ".join(inputs[i]),)
        for words in carriers
    ]
    flags = [judged.flagged for judged in judge(rows)]
    raised = {i: sum(flags[n * CARRIERS : (n + 1) * CARRIERS]) for n, i in enumerate(doubted)}
    return [replace(purged, confirmed=2 * raised.get(i, CARRIERS) >= CARRIERS) for i, purged in enumerate(found)]


def _step(
    inputs: Sequence[Fields],
    found: list[Purged],
    judge: Judge,
    propose: Callable[[int], list[frozenset[Gram]]],
) -> None:
    """Tries proposals for every input that is still flagged, in one batch, and keeps the best of each."""
    tried = [(i, grams) for i, purged in enumerate(found) if not purged.resolved for grams in propose(i)]
    if not tried:
        return
    judged = judge([_without(inputs[i], grams) for i, grams in tried])
    for (i, grams), now in zip(tried, judged, strict=True):
        best = found[i].judged
        if (now.flagged, now.hit, now.score) < (best.flagged, best.hit, best.score):
            found[i] = Purged(grams=grams, judged=now)


def _alone(
    inputs: Sequence[Fields], found: Sequence[Purged], judge: Judge, heat: dict[str, float]
) -> dict[int, frozenset[Gram]]:
    """By input that is still flagged: its words, and neighbouring pairs of words, that are flagged standing alone.

    A pair counts where neither of its words does. Scores of single words go to `heat`.
    """
    rest = {i: _without(inputs[i], purged.grams) for i, purged in enumerate(found) if not purged.resolved}
    grams = {i: [*((form,) for form in forms(texts)), *neighbours(texts)] for i, texts in rest.items()}
    distinct = list(dict.fromkeys(gram for row in grams.values() for gram in row))
    if not distinct:
        return {i: frozenset() for i in rest}
    judged = dict(zip(distinct, judge([(" ".join(gram),) for gram in distinct]), strict=True))
    heat.update({gram[0]: now.score for gram, now in judged.items() if len(gram) == 1})
    hot = {gram for gram, now in judged.items() if now.flagged}
    hot = {gram for gram in hot if len(gram) == 1 or not any((form,) in hot for form in gram)}
    return {i: frozenset(hot.intersection(row)) for i, row in grams.items()}


def _without(fields: Fields, grams: frozenset[Gram]) -> Fields:
    return tuple(cut(text, grams).text for text in fields)
