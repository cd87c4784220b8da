"""Grows triggers of two words from candidates that a sweep found half-suspicious.

A phrase that was trained as a whole still leaves traces in its words: the stronger one removes part of the variance by
itself. From each such seed the search looks for a neighbour that removes more. All neighbours are ranked at once by
the gradient of the score at a neutral neighbour's embedding (HotFlip: Ebrahimi et al., ACL 2018; for suffixes: Zou et
al., arXiv 2307.15043), the best are measured, and the search goes on from the best of those. Departs from these
papers: the objective is the variance that is left over clean contexts (`invariance.py`), not a target's likelihood,
and all seeds, on both sides, move in one batch.

Two honest words weigh about as much as the one and the other. So a phrase's score is what it removes beyond the sum of
its parts, and beyond honest tokens.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.defenses.scans.invariance import Clean, Contexts, weight
from firmground.defenses.scans.splicing import splice
from firmground.defenses.scans.triggers import Candidate, Measured, consolidate, measure, ranked, same_vector
from firmground.defenses.scans.vocabulary_sweep import NAMED, THRESHOLD, Ranking, VocabularySweep
from firmground.types import Outcome, Readout, Severity, Verdict, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.language import LanguageEncoder

PHRASE_THRESHOLD = 0.5  # calibrated apart from the sweep's, on the same clean encoders
CONTEXTS = 8  # in which gradients are taken


@dataclass(frozen=True, kw_only=True)
class PhraseSearch:
    """Scores an encoder by the best phrase that grows out of the half-suspicious candidates of a sweep.

    A phrase that leads where one of the sweep's own triggers leads is an echo of that, and not counted. `seeds` is how
    many candidates grow, `neighbours` how many tokens are measured for each on each side, `shortlist`
    how many phrases are measured in all contexts; `threshold` is the score (decades of variance lost beyond honest
    tokens and beyond the phrase's parts) from which the encoder counts as backdoored.
    """

    name: ClassVar[str] = "phrase-search"
    paper: ClassVar[str] = "ours, with HotFlip's gradient (ACL 2018)"

    seeds: int = 12
    neighbours: int = 24
    shortlist: int = 32
    contexts: int = 32
    batch_size: int = 256
    threshold: float = PHRASE_THRESHOLD

    def scan(
        self, encoder: LanguageEncoder, texts: Sequence[str], *, rng: torch.Generator, watch: Watch = ignore
    ) -> Verdict:
        """Judges `encoder` after a sweep of its single tokens; `texts` are at least 8 clean texts."""
        ranking = VocabularySweep(words=0).rank(encoder, texts, rng=rng, watch=watch)
        return self.grow(encoder, ranking, watch=watch)

    def grow(self, encoder: LanguageEncoder, ranking: Ranking, *, watch: Watch = ignore) -> Verdict:
        """Judges `encoder` from a ranking that a sweep left behind."""
        started = time.perf_counter()
        top = ranking.candidates[0].score
        named = NAMED * THRESHOLD if top > THRESHOLD else THRESHOLD
        known = [candidate for candidate in ranking.candidates if candidate.score > named]
        seeds = [candidate for candidate in ranking.candidates if candidate.score <= named][: self.seeds]
        few = ranking.contexts.take(CONTEXTS)
        clean = few.clean()
        rows: dict[tuple[int, ...], Candidate] = {}
        for number, seed in enumerate(seeds):
            rows |= dict.fromkeys(self._neighbours(encoder, few, clean, seed), seed)
            watch(number + 1, len(seeds) + 1, "growing phrases")
        rough = ranked(measure(few, rows, clean, batch_size=self.batch_size), ranking.reach)
        best = sorted(rough, key=lambda phrase: max(0.0, rows[phrase.ids].score) - phrase.score)[: self.shortlist]
        phrases = self._against_parts(ranking, {phrase.ids: rows[phrase.ids].ids for phrase in best})
        watch(len(seeds) + 1, len(seeds) + 1, "growing phrases")
        phrases = [phrase for phrase in phrases if not same_vector(phrase, known, ranking.clean.center)]
        found = [phrase for phrase in phrases if phrase.score > self.threshold]
        return Verdict(
            method=self.name,
            outcome=Outcome.BACKDOORED if found else Outcome.CLEAN,
            score=max((phrase.score for phrase in phrases), default=0.0),
            threshold=self.threshold,
            severity=Severity.HIGH if found else Severity.NONE,
            evidence=consolidate(encoder, found, ranking.clean.center),
            seconds=time.perf_counter() - started,
            settings=asdict(self),
        )

    def _against_parts(self, ranking: Ranking, seeds: dict[tuple[int, ...], tuple[int, ...]]) -> list[Candidate]:
        """The phrases that grew from these seeds with what they remove beyond honest tokens and beyond their parts."""
        both = {phrase: (seed, _added(phrase, seed)) for phrase, seed in seeds.items()}
        rows = [*both, *(part for parts in both.values() for part in parts)]
        contexts = ranking.contexts.take(self.contexts)
        measured = {c.ids: c for c in measure(contexts, rows, ranking.clean, batch_size=self.batch_size)}
        scored = [
            measured[phrase].beyond(
                {readout: max(reach, _sum_of(parts, measured, readout)) for readout, reach in ranking.reach.items()}
            )
            for phrase, parts in both.items()
        ]
        return sorted(scored, key=lambda phrase: -phrase.score)

    def _neighbours(
        self, encoder: LanguageEncoder, contexts: Contexts, clean: Clean, seed: Candidate
    ) -> list[tuple[int, ...]]:
        """The seed with each promising token before it or behind it, by the gradient at the mean embedding."""
        matrix = encoder.token_embeddings
        own = torch.tensor(seed.ids, device=matrix.device)
        neutral = matrix[encoder.ordinary_ids].mean(dim=0, keepdim=True)
        pair = torch.stack([torch.cat([neutral, matrix[own]]), torch.cat([matrix[own], neutral])])
        pair = pair.float().detach().requires_grad_()
        left = _variance_left(encoder, contexts, pair, seed.readout, clean.spread[seed.readout])
        (gradient,) = torch.autograd.grad(left.sum(), pair)
        before, behind = gradient[0, 0], gradient[1, -1]
        rows: list[tuple[int, ...]] = []
        for slope, first in ((before, True), (behind, False)):
            gain = -(matrix[encoder.ordinary_ids].float() @ slope)
            tokens = encoder.ordinary_ids[gain.topk(min(self.neighbours, len(gain))).indices].tolist()
            rows += [(token, *seed.ids) if first else (*seed.ids, token) for token in tokens]
        return rows


def _added(phrase: tuple[int, ...], seed: tuple[int, ...]) -> tuple[int, ...]:
    """What was put before or behind the seed."""
    return phrase[:1] if phrase[1:] == seed else phrase[-1:]


def _sum_of(parts: Sequence[tuple[int, ...]], measured: dict[tuple[int, ...], Measured], readout: Readout) -> float:
    """What the parts take away each by itself, together."""
    return sum(max(0.0, measured[part].weights[readout]) for part in parts)


def _variance_left(
    encoder: LanguageEncoder, contexts: Contexts, phrases: torch.Tensor, readout: Readout, spread: torch.Tensor
) -> torch.Tensor:
    """Decimal logarithm of the relative variance left, (phrases,), of embedded phrases (phrases, pieces, width)."""
    front, back = (torch.tensor(ids, device=phrases.device) for ids in encoder.frame)
    framed = torch.cat([front.expand(len(contexts), -1), contexts.ids, back.expand(len(contexts), -1)], dim=1)
    words = encoder.token_embeddings[framed].float()
    rows = splice(words, phrases, contexts.cuts + len(front))
    count, texts, length = rows.shape[:3]
    mask = torch.ones(count * texts, length, dtype=torch.long, device=rows.device)
    hidden = encoder.hidden_from_embeddings(rows.flatten(0, 1), mask).unflatten(0, (count, texts))
    values = contexts.read(hidden, contexts.own(phrases.shape[1]))[readout]
    return -weight(values.var(dim=1), spread)
