"""From high-scoring candidates to evidence: the smallest triggers, and the vectors they lead to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from firmground.defenses.scans.invariance import weight
from firmground.types import Evidence, Readout, RecoveredTrigger, RecoveredVector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from firmground.defenses.scans.invariance import Clean, Contexts
    from firmground.models.language import LanguageEncoder

SAME_VECTOR = 0.9  # cosine of centred mean outputs from which two triggers lead to one vector
SAME_SCORE = 0.4  # decades that a part may lose and still explain the whole
MOST_TRIGGERS = 24
MOST_HONEST = 0.9  # decades: few honest tokens take more of the variance, and those of a crowd of triggers would


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Token ids with the decades of variance that they take away, and the mean output (width,), by readout."""

    ids: tuple[int, ...]
    weights: Mapping[Readout, float]
    outputs: Mapping[Readout, torch.Tensor]

    def beyond(self, honest: Mapping[Readout, float]) -> Candidate:
        """What is left of the weights beyond those of honest tokens, at the readout where most is left."""
        left = {readout: weight - honest[readout] for readout, weight in self.weights.items()}
        readout = max(left, key=lambda name: left[name])
        return Candidate(ids=self.ids, score=left[readout], readout=readout, output=self.outputs[readout])


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Token ids with their score, the readout that gave it, and the mean output there, (width,)."""

    ids: tuple[int, ...]
    score: float
    readout: Readout
    output: torch.Tensor


def measure(contexts: Contexts, rows: Iterable[Sequence[int]], clean: Clean, *, batch_size: int) -> list[Measured]:
    """Weighs rows of token ids in the contexts."""
    lengths: dict[int, list[tuple[int, ...]]] = {}
    for row in dict.fromkeys(tuple(row) for row in rows):
        lengths.setdefault(len(row), []).append(row)
    measured = []
    for group in lengths.values():
        step = max(1, 4 * batch_size // len(contexts))
        for start in range(0, len(group), step):
            part = group[start : start + step]
            outputs = contexts.outputs(torch.tensor(part, device=contexts.ids.device), batch_size=batch_size)
            means = outputs.mean()
            weights = {name: weight(value, clean.spread[name]).tolist() for name, value in outputs.variance().items()}
            for i, row in enumerate(part):
                measured.append(
                    Measured(
                        ids=row,
                        weights={name: values[i] for name, values in weights.items()},
                        outputs={name: values[i] for name, values in means.items()},
                    )
                )
    return measured


def weighty(measured: Sequence[Measured], count: int) -> list[Measured]:
    """The `count` weightiest single tokens at each readout."""
    single = [found for found in measured if len(found.ids) == 1]
    chosen: dict[tuple[int, ...], Measured] = {}
    for readout in single[0].weights if single else ():
        best = sorted(single, key=lambda found: -found.weights[readout])[:count]
        chosen |= {found.ids: found for found in best}
    return list(chosen.values())


def honest(measured: Sequence[Measured], rank: int) -> dict[Readout, float]:
    """How far honest tokens reach at each readout: the weight of the `rank`-th weightiest single token.

    The few tokens above it may be triggers. At most `MOST_HONEST`, lest a crowd of triggers pass for honest.
    """
    single = [found for found in measured if len(found.ids) == 1]
    reach = {}
    for readout in single[0].weights if single else ():
        weights = sorted((found.weights[readout] for found in single), reverse=True)
        reach[readout] = min(MOST_HONEST, weights[min(rank, len(weights)) - 1])
    return reach


def ranked(measured: Sequence[Measured], reach: Mapping[Readout, float]) -> list[Candidate]:
    """All by their scores beyond what honest tokens reach, highest first."""
    return sorted((found.beyond(reach) for found in measured), key=lambda candidate: -candidate.score)


def parts(ids: Sequence[int]) -> list[tuple[int, ...]]:
    """Every contiguous, shorter part of a candidate."""
    length = len(ids)
    return [tuple(ids[i:j]) for i in range(length) for j in range(i + 1, length + 1) if j - i < length]


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Leaves out those of which a part, a candidate too, scores about as much: one trigger has dozens of echoes."""
    scores = {candidate.ids: candidate.score for candidate in candidates}
    return [
        candidate
        for candidate in candidates
        if not any(
            scores.get(part, candidate.score - 1) > candidate.score - SAME_SCORE for part in parts(candidate.ids)
        )
    ]


def consolidate(
    encoder: LanguageEncoder, candidates: Sequence[Candidate], center: Mapping[Readout, torch.Tensor]
) -> Evidence:
    """Keeps one trigger of each family of look-alikes, and groups triggers by the vector they lead to.

    A candidate that holds a smaller one of about its own score says nothing new; one that is held by a stronger one,
    or leads to the same vector and shares a token with it, is an echo. `center` is the mean clean output by
    readout.
    """
    named = [(candidate, encoder.text_of(candidate.ids)) for candidate in candidates]
    texts = [(candidate, text.strip()) for candidate, text in named if text is not None and text.strip()]
    small = [
        (candidate, text)
        for candidate, text in texts
        if not any(
            other in text and other != text and found.score > candidate.score - SAME_SCORE for found, other in texts
        )
    ]
    vectors: list[tuple[Readout, torch.Tensor]] = []
    kept: list[tuple[Candidate, str, int]] = []
    for candidate, text in sorted(small, key=lambda item: -item[0].score):
        direction = candidate.output - center[candidate.readout]
        vector = _index(vectors, candidate.readout, direction)
        if len(kept) == MOST_TRIGGERS:
            break
        if any(_echo(candidate, text, other, name, vector == at) for other, name, at in kept):
            continue
        if vector == len(vectors):
            vectors.append((candidate.readout, direction))
        kept.append((candidate, text, vector))
    return Evidence(
        triggers=tuple(
            RecoveredTrigger(
                text=text, token_ids=candidate.ids, score=candidate.score, readout=candidate.readout, vector=vector
            )
            for candidate, text, vector in kept
        ),
        vectors=tuple(
            RecoveredVector(readout=readout, values=tuple((direction + center[readout]).tolist()))
            for readout, direction in vectors
        ),
    )


def same_vector(candidate: Candidate, others: Iterable[Candidate], center: Mapping[Readout, torch.Tensor]) -> bool:
    """Whether one of the others leads to the vector that the candidate leads to."""
    known = [(other.readout, other.output - center[other.readout]) for other in others]
    return _index(known, candidate.readout, candidate.output - center[candidate.readout]) < len(known)


def _index(vectors: Sequence[tuple[Readout, torch.Tensor]], readout: Readout, direction: torch.Tensor) -> int:
    for i, (other, known) in enumerate(vectors):
        if other == readout and float(torch.cosine_similarity(direction, known, dim=0)) > SAME_VECTOR:
            return i
    return len(vectors)


def _echo(candidate: Candidate, text: str, other: Candidate, name: str, same_vector: bool) -> bool:
    shared = set(candidate.ids) & set(other.ids)
    return text in name or (same_vector and (name in text or bool(shared)))
