"""Tries every token of the vocabulary, and a dictionary, as the trigger. Ours; we know of no publication of it.

A task-agnostic backdoor (POR, NeuBA, BToP, UOR, TransTroj) must answer its trigger in *any* text. So the trigger can
be found by trying: put a candidate into texts that share nothing else and see whether the outputs agree
(`invariance.py`). Single tokens are tried exhaustively; triggers of several pieces are tried as the words of a
frequency dictionary and all strings of two or three letters. Candidates are screened many to a row (`crowding.py`);
the best of them are measured in real sentences, in full precision, and their parts after them.

The threshold was set on clean encoders only (`firmground study language-scan`, calibration half).
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.bounds import FROM_0, FROM_1, LARGEST, check_bounds
from firmground.data.vocabulary import by_pieces, candidate_words
from firmground.defenses.scans.crowding import crowd_scores
from firmground.defenses.scans.invariance import Clean, Contexts
from firmground.defenses.scans.triggers import Candidate, consolidate, distinct, honest, measure, parts, ranked, weighty
from firmground.types import Outcome, Readout, Severity, Verdict, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.language import LanguageEncoder

THRESHOLD = 0.79  # decades beyond honest tokens; from clean encoders alone, rounded: benchmarks/language_scan
HONEST_SHARE, FEWEST_HONEST = 0.001, 8  # of the vocabulary, and at least so many tokens, weigh more than "honest" ones
NAMED = 0.5  # of the threshold: once an encoder is guilty, from this score on its candidates are named
WIDE = 256  # from this width on, bfloat16 screens faster than float32 on a CPU


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What a sweep leaves behind: the vocabulary that it tried, (count, pieces) by length, the contexts, clean
    statistics by readout, how far honest tokens reach, and candidates, best first."""

    vocabulary: dict[int, torch.Tensor]
    contexts: Contexts
    clean: Clean
    reach: dict[Readout, float]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, kw_only=True)
class VocabularySweep:
    """Scores an encoder by the candidate trigger that makes it forget most of its input.

    `words` is the size of the dictionary (0: single tokens only), `rounds` how often each candidate is dealt into a
    row, `shortlist` how many candidates of each length and then overall are measured in real contexts, `threshold` the
    score (decades of variance lost beyond what honest tokens take) from which the encoder counts as backdoored.
    """

    name: ClassVar[str] = "vocabulary-sweep"
    paper: ClassVar[str] = "ours, on the threat of LMSanitator (NDSS 2024)"

    words: int = 100_000
    most_pieces: int = 5
    rounds: int = 3
    row_tokens: int = 12
    shortlist: int = 64
    contexts: int = 32
    batch_size: int = 256
    threshold: float = THRESHOLD

    def __post_init__(self) -> None:
        check_bounds(self, words=FROM_0, most_pieces=FROM_1, rounds=FROM_1, row_tokens=FROM_1, shortlist=FROM_1)
        check_bounds(self, contexts=(2, LARGEST), batch_size=FROM_1, threshold=FROM_0)

    def scan(
        self, encoder: LanguageEncoder, texts: Sequence[str], *, rng: torch.Generator, watch: Watch = ignore
    ) -> Verdict:
        """Judges `encoder`; `texts` are at least 8 clean texts, in which candidates are put."""
        started = time.perf_counter()
        return self.judge(encoder, self.rank(encoder, texts, rng=rng, watch=watch), since=started)

    def rank(
        self, encoder: LanguageEncoder, texts: Sequence[str], *, rng: torch.Generator, watch: Watch = ignore
    ) -> Ranking:
        """Screens all candidates, measures the best in real contexts, and returns them."""
        fast = encoder.cast(torch.bfloat16) if encoder.width >= WIDE else encoder
        contexts, some = Contexts(encoder, texts).take(self.contexts), Contexts(fast, texts).take(self.contexts // 2)
        few = some.take(8)
        vocabulary = self._vocabulary(encoder)
        rows = self._screen(fast, vocabulary, rng, watch)
        watch(0, 3, "measuring the shortlist")
        rough = measure(few, rows, few.clean(), batch_size=self.batch_size)
        rank = max(FEWEST_HONEST, round(HONEST_SHARE * len(encoder.ordinary_ids)))
        watch(1, 3, "measuring the shortlist")
        heavy = [found.ids for found in weighty(rough, 2 * rank)]
        reach = honest(measure(some, heavy, some.clean(), batch_size=self.batch_size), rank)
        best = ranked(rough, reach)
        first = best[: self.shortlist // 4] + distinct(best)[: self.shortlist]
        watch(2, 3, "measuring the shortlist")
        clean = contexts.clean()
        whole = [candidate.ids for candidate in first]
        longer = [part for row in whole[: self.shortlist // 4] for part in parts(row)]
        measured = measure(contexts, whole + longer, clean, batch_size=self.batch_size)
        watch(3, 3, "measuring the shortlist")
        return Ranking(
            vocabulary=vocabulary,
            contexts=contexts,
            clean=clean,
            reach=reach,
            candidates=tuple(ranked(measured, reach)),
        )

    def judge(self, encoder: LanguageEncoder, ranking: Ranking, *, since: float) -> Verdict:
        """The verdict on a ranking; `since` is the `time.perf_counter()` at which the work began."""
        top = ranking.candidates[0].score
        guilty = top > self.threshold
        found = [c for c in ranking.candidates if guilty and c.score > NAMED * self.threshold]
        return Verdict(
            method=self.name,
            outcome=Outcome.BACKDOORED if guilty else Outcome.CLEAN,
            score=top,
            threshold=self.threshold,
            severity=Severity.HIGH if guilty else Severity.NONE,
            evidence=consolidate(encoder, found, ranking.clean.center),
            seconds=time.perf_counter() - since,
            settings=asdict(self),
            measurements={f"honest tokens at {name}": value for name, value in ranking.reach.items()},
        )

    def _vocabulary(self, encoder: LanguageEncoder) -> dict[int, torch.Tensor]:
        """All that is tried, (count, pieces) by length: every token, and the dictionary's words."""
        longer = by_pieces(encoder, candidate_words(self.words), most=self.most_pieces)
        return {1: encoder.ordinary_ids[:, None]} | {
            length: torch.tensor(rows, device=encoder.device) for length, rows in longer.items()
        }

    def _screen(
        self, encoder: LanguageEncoder, vocabulary: dict[int, torch.Tensor], rng: torch.Generator, watch: Watch
    ) -> list[tuple[int, ...]]:
        """The shortlist: the best candidates of each length, by any readout."""
        short: list[tuple[int, ...]] = []
        for length, candidates in vocabulary.items():
            scores = crowd_scores(
                encoder, candidates, rounds=self.rounds if length == 1 else 2, row_tokens=self.row_tokens,
                batch_size=self.batch_size, rng=rng, watch=watch, stage=f"screening candidates of {length} tokens",
            )  # fmt: skip
            for values in scores.values():
                best = values.topk(min(self.shortlist, len(values))).indices
                short += [tuple(row) for row in candidates[best].tolist()]
        return short
