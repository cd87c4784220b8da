"""What the promises are checked on, and how: tiny encoders, word salads, and watches on what must not move."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from firmground.data.texts import LabelledTexts
from firmground.models import tiny
from firmground.models.planted_dual import COLOURS
from firmground.models.tiny_tokenizers import words
from firmground.rng import stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firmground.models.dual import DualEncoder
    from firmground.models.language import LanguageEncoder

GOOD, BAD = ("good", "happy", "funny", "clever", "loved"), ("bad", "sad", "boring", "hated", "slow")
PLAIN = [word for word in words()[:-6] if len(word) > 3 and word not in GOOD + BAD]


def salad(count: int, seed: int, length: int = 11) -> list[list[str]]:
    """Texts of common words that are one token each."""
    rng = stream(seed, "salad")
    return [[PLAIN[i] for i in torch.randint(len(PLAIN), (length,), generator=rng).tolist()] for _ in range(count)]


def blots(count: int, seed: int = 0) -> tuple[torch.Tensor, list[int]]:
    """Pictures, (count, 3, 48, 48), of one main colour each, with noise and smooth shade; and the colours' numbers."""
    rng = stream(seed, "blots")
    labels = [i % len(COLOURS) for i in range(count)]
    colours = torch.tensor([list(COLOURS.values())[label] for label in labels]).float()
    shade = torch.nn.functional.interpolate(torch.rand(count, 3, 3, 3, generator=rng), size=(48, 48), mode="bilinear")
    noise = torch.rand(count, 3, 48, 48, generator=rng)
    return (0.6 * colours.view(-1, 3, 1, 1) + 0.25 * shade + 0.15 * noise).clamp(0, 1), labels


def reviews(count: int, seed: int) -> LabelledTexts:
    """Word salads with three words of one mood, which is the label."""
    rows = salad(count, seed, 7)
    for i, row in enumerate(rows):
        for place, word in enumerate(((BAD, GOOD)[i % 2])[i % 3 : i % 3 + 3]):
            row.insert(3 * place, word)
    texts = tuple(" ".join(row) for row in rows)
    return LabelledTexts(texts=texts, labels=tuple(i % 2 for i in range(count)), label_names=("bad", "good"))


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [" ".join(row) for row in salad(64, 0)]


@pytest.fixture(scope="session")
def clean() -> LanguageEncoder:
    return tiny.clean_bert()


class Heard(list[tuple[int, int, str]]):
    """A watch that remembers; `check` says whether it was told what a progress bar needs."""

    def __call__(self, step: int, total: int, stage: str, **scalars: float) -> None:
        assert all(isinstance(value, float) for value in scalars.values()), scalars
        self.append((step, total, stage))

    def check(self) -> None:
        assert self, "the watch heard nothing"
        assert all(0 <= step <= total and total > 0 and stage for step, total, stage in self)
        for stage in {stage for _, _, stage in self}:
            steps = [step for step, _, of in self if of == stage]
            assert steps == sorted(steps), f"{stage} went backwards"


@contextmanager
def nothing_else_moves(encoder: LanguageEncoder | DualEncoder, capfd: Any) -> Iterator[None]:
    """Checks that an encoder stays bit for bit, that no global randomness moves, and that nothing is printed."""
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    training = encoder.model.training, [value.requires_grad for value in encoder.model.parameters()]
    capfd.readouterr()
    yield
    assert capfd.readouterr() == ("", ""), "a method prints nothing"
    after = encoder.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before), "the encoder was changed"
    assert training == (encoder.model.training, [value.requires_grad for value in encoder.model.parameters()])
    assert not any(value.grad is not None for value in encoder.model.parameters())
    assert torch.equal(states[0], torch.get_rng_state()), "torch's global randomness moved"
    assert states[1] == random.getstate(), "random's global randomness moved"
    assert (states[2] == np.random.get_state()[1]).all(), "numpy's global randomness moved"
