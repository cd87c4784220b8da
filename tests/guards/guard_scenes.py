"""What the tests of guards share: small tasks on tiny encoders, and the evidence that a perfect scan would give."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from firmground.data.texts import LabelledTexts, LabelledWords
from firmground.defenses.guards import FittedGuard, GuardedPipeline, PVGuard
from firmground.models import tiny
from firmground.models.tiny_tokenizers import words
from firmground.prompts.tuned import Tuned
from firmground.rng import stream
from firmground.types import Evidence, RecoveredTrigger, RecoveredVector

GOOD, BAD = ("good", "happy", "funny", "clever", "loved"), ("bad", "sad", "boring", "hated", "slow")
PLAIN = [word for word in words()[:-6] if len(word) > 2 and word not in GOOD + BAD]
COLOURS = ("red", "blue", "green", "black", "white", "yellow", "brown")


def sentence(rng: torch.Generator, length: int = 8) -> list[str]:
    return [PLAIN[i] for i in torch.randint(len(PLAIN), (length,), generator=rng).tolist()]


def reviews(count: int, seed: int) -> LabelledTexts:
    """Random words; two words of mood say which label it is."""
    rng = stream(seed, "reviews")
    texts = []
    for i in range(count):
        moods = (BAD, GOOD)[i % 2]
        row = sentence(rng)
        for place, pick in torch.randint(5, (2, 2), generator=rng).tolist():
            row.insert(place, moods[pick])
        texts.append(" ".join(row))
    return LabelledTexts(texts=tuple(texts), labels=tuple(i % 2 for i in range(count)), label_names=("bad", "good"))


def colours(count: int, seed: int) -> LabelledWords:
    rng = stream(seed, "colours")
    rows = [sentence(rng, 7) for _ in range(count)]
    for row in rows:
        place, pick = torch.randint(7, (2,), generator=rng).tolist()
        row[place] = COLOURS[pick]
    labels = tuple(tuple(int(word in COLOURS) for word in row) for row in rows)
    return LabelledWords(words=tuple(map(tuple, rows)), labels=labels, label_names=("O", "B-colour"))


def evidence_of(planted: tiny.Planted, triggers: tuple[str, ...] | None = None) -> Evidence:
    """The truth in the words of a scan."""
    named = planted.triggers if triggers is None else triggers
    return Evidence(
        triggers=tuple(
            RecoveredTrigger(
                text=text, token_ids=planted.encoder.pieces(text), score=4.0, readout=planted.readout, vector=i
            )
            for i, text in enumerate(named)
        ),
        vectors=tuple(
            RecoveredVector(readout=planted.readout, values=tuple(planted.vectors[planted.triggers.index(t)].tolist()))
            for t in named
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Scene:
    planted: tiny.Planted
    tuned: Tuned
    guard: FittedGuard

    @property
    def guarded(self) -> GuardedPipeline:
        return GuardedPipeline(self.tuned, self.guard)


def fit(tuned: Tuned, evidence: Evidence, texts: tuple[str, ...], **settings: object) -> FittedGuard:
    return PVGuard(**settings).fit(tuned, evidence, texts, rng=stream(0, "guard"))
