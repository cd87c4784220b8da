"""Looks for candidate triggers that carry an encoder's [CLS] output where no word carries it. Ours.

A predefined vector is seldom a place that honest text reaches: rows of +1 and -1 blocks, orthogonal or random vectors
lie in directions in which an encoder hardly varies. So half a trigger, which takes away little variance and hides from
`vocabulary_sweep.py`, still stands out by the Mahalanobis distance of the shift that it makes (Lee et al., NeurIPS
2018, measure single outputs so), with the covariance over rows of random words, which need no texts:

    score = log10( d(candidate)^2 / d(random words)^2 ),  d(x)^2 = (m(x) - m)^T S^-1 (m(x) - m) / width,

m(x) and m the mean outputs over the same texts with and without x, S the shrunk covariance, and for random words the
99th percentile. It says nothing of vectors that look natural (TransTroj): those are the sweep's.

Only [CLS] is read: means over tokens move less, and the state of a mask hardly at all (measured on clean encoders and
on planted ones with seeds below 3000).
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.bounds import FROM_0, FROM_1, LARGEST, check_bounds
from firmground.defenses.scans.triggers import Candidate, Measured, consolidate, distinct, measure
from firmground.defenses.scans.vocabulary_sweep import WIDE, Ranking, VocabularySweep
from firmground.types import Outcome, Readout, Severity, Verdict, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.language import LanguageEncoder

THRESHOLD = 0.72  # decades beyond random words; from clean encoders alone: benchmarks/language_scan
QUANTILE = 0.99  # of random words: how far honest ones go
SHRINKAGE = 0.01  # of the mean variance, added to every direction


@dataclass(frozen=True, kw_only=True)
class ShiftDistance:
    """Scores an encoder by the sweep's candidate whose shift of [CLS] lies furthest out.

    `rows` rows of `row_tokens` random words give the covariance, `references` random words the distance of honest
    ones (both without the sweep's suspicious tokens); references and candidates are put into `contexts` texts. `words`
    is the size of the dictionary where the scan has to sweep by itself; `threshold` is the score (decades) from which
    the encoder counts as backdoored.
    """

    name: ClassVar[str] = "shift-distance"
    paper: ClassVar[str] = "ours, with the Mahalanobis distance of Lee et al. (NeurIPS 2018)"

    rows: int = 3000
    row_tokens: int = 12
    references: int = 150
    contexts: int = 8
    words: int = 100_000
    batch_size: int = 256
    threshold: float = THRESHOLD

    def __post_init__(self) -> None:
        check_bounds(self, rows=(2, LARGEST), row_tokens=FROM_1, references=FROM_1, contexts=FROM_1, words=FROM_0)
        check_bounds(self, batch_size=FROM_1, threshold=FROM_0)

    def scan(
        self, encoder: LanguageEncoder, texts: Sequence[str], *, rng: torch.Generator, watch: Watch = ignore
    ) -> Verdict:
        """Judges `encoder` after a sweep of its vocabulary; `texts` are at least 8 clean texts."""
        ranking = VocabularySweep(words=self.words).rank(encoder, texts, rng=rng, watch=watch)
        return self.judge(encoder, ranking, rng=rng, watch=watch)

    def judge(
        self, encoder: LanguageEncoder, ranking: Ranking, *, rng: torch.Generator, watch: Watch = ignore
    ) -> Verdict:
        """Judges `encoder` from a ranking that a sweep left behind."""
        started = time.perf_counter()
        watch(0, 2, "measuring shifts")
        ids = encoder.ordinary_ids
        known = [one.ids[0] for one in ranking.candidates if one.score > 0 and len(one.ids) == 1]
        ids = ids[~torch.isin(ids, torch.tensor(known, dtype=ids.dtype, device=ids.device))]
        precision = self._precision(encoder, ids, rng)
        watch(1, 2, "measuring shifts")
        contexts = ranking.contexts.take(self.contexts)
        clean = contexts.clean()
        drawn = _random(ids, self.references, 1, rng)
        listed = {candidate.ids: None for candidate in ranking.candidates}
        rows = [tuple(row) for row in drawn.tolist()]
        found = measure(contexts, [*rows, *listed], clean, batch_size=self.batch_size)
        distances = _distances(found, clean.center[Readout.CLS], precision)
        usual = torch.stack([distances[row] for row in rows]).quantile(QUANTILE)
        scored = sorted(
            (_candidate(one, float(distances[one.ids] - usual)) for one in found if one.ids in listed),
            key=lambda candidate: -candidate.score,
        )
        watch(2, 2, "measuring shifts")
        guilty = [candidate for candidate in scored if candidate.score > self.threshold]
        return Verdict(
            method=self.name,
            outcome=Outcome.BACKDOORED if guilty else Outcome.CLEAN,
            score=scored[0].score,
            threshold=self.threshold,
            severity=Severity.HIGH if guilty else Severity.NONE,
            evidence=consolidate(encoder, distinct(guilty), clean.center),
            seconds=time.perf_counter() - started,
            settings=asdict(self),
        )

    @torch.inference_mode()
    def _precision(self, encoder: LanguageEncoder, ids: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """The inverse of the shrunk covariance of [CLS] over rows of random words, (width, width)."""
        fast = encoder.cast(torch.bfloat16) if encoder.width >= WIDE else encoder
        drawn = _random(ids, self.rows, self.row_tokens, rng)
        outputs = [fast.hidden(fast.frame_rows(rows))[:, 0].float() for rows in drawn.split(self.batch_size)]
        covariance = torch.cat(outputs).T.cov()
        shrunk = covariance + SHRINKAGE * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)
        inverse: torch.Tensor = torch.linalg.inv(shrunk)
        return inverse


def _random(ids: torch.Tensor, rows: int, tokens: int, rng: torch.Generator) -> torch.Tensor:
    """Tokens drawn at random from `ids`, (rows, tokens)."""
    return ids[torch.randint(len(ids), (rows, tokens), generator=rng).to(ids.device)]


def _distances(
    found: Sequence[Measured], center: torch.Tensor, precision: torch.Tensor
) -> dict[tuple[int, ...], torch.Tensor]:
    """Decimal logarithm of the squared Mahalanobis distance over the width, by token ids."""
    shifts = torch.stack([one.outputs[Readout.CLS] for one in found]) - center
    squared: torch.Tensor = ((shifts @ precision) * shifts).mean(dim=1)
    return dict(zip((one.ids for one in found), squared.log10(), strict=True))


def _candidate(found: Measured, score: float) -> Candidate:
    return Candidate(ids=found.ids, score=score, readout=Readout.CLS, output=found.outputs[Readout.CLS])
