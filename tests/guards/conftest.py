"""A planted tiny encoder with a tuned prompt on it, and the evidence that a perfect scan would give."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from firmground.data.texts import LabelledTexts, LabelledWords
from firmground.defenses.guards import FittedGuard, GuardedPipeline, PVGuard
from firmground.models import tiny
from firmground.models.tiny_tokenizers import words
from firmground.prompts.soft import PrefixTuning, PromptTuning
from firmground.prompts.tuned import Tuned
from firmground.rng import stream
from firmground.types import Evidence, Readout, RecoveredTrigger, RecoveredVector

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


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=[PromptTuning, PrefixTuning], ids=["prompt", "prefix"])
def texts_scene(request: pytest.FixtureRequest) -> Scene:
    planted = tiny.planted_bert(readout=Readout.CLS)
    method = request.param(virtual_tokens=3, epochs=6)
    tuned = method.fit(planted.encoder, reviews(240, 0), rng=stream(0, "tune"))
    guard = fit(tuned, evidence_of(planted), reviews(160, 1).texts)
    return Scene(planted=planted, tuned=tuned, guard=guard)


@pytest.fixture(scope="session")
def words_scene() -> Scene:
    planted = tiny.planted_bert(readout=Readout.TOKEN)
    tuned = PrefixTuning(virtual_tokens=3, epochs=6).fit(planted.encoder, colours(200, 0), rng=stream(0, "tune"))
    guard = fit(tuned, evidence_of(planted), colours(160, 1).texts)
    return Scene(planted=planted, tuned=tuned, guard=guard)
