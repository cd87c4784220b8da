"""What every guard promises: it stops what was planted, lets clean texts through, and comes back from its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from safetensors import safe_open

from firmground.defenses.guards import FittedGuard, GuardedPipeline, load_guard
from firmground.errors import DataError
from firmground.models import tiny
from firmground.prompts.soft import PrefixTuning
from firmground.rng import stream
from firmground.types import Evidence, RecoveredTrigger, RecoveredVector

from . import cases
from .conftest import Heard, nothing_else_moves, reviews

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.prompts.tuned import Tuned


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A planted encoder, a prompt on it, and what a perfect scan says of it."""

    truth: tiny.Planted
    tuned: Tuned
    evidence: Evidence


@pytest.fixture(scope="module")
def scene() -> Scene:
    truth = tiny.planted_bert()
    tuned = PrefixTuning(virtual_tokens=2, epochs=4).fit(truth.encoder, reviews(160, 0), rng=stream(0, "fit"))
    triggers = tuple(
        RecoveredTrigger(text=text, token_ids=truth.encoder.pieces(text), score=3.0, readout=truth.readout, vector=i)
        for i, text in enumerate(truth.triggers)
    )
    vectors = tuple(RecoveredVector(readout=truth.readout, values=tuple(row)) for row in truth.vectors.tolist())
    return Scene(truth=truth, tuned=tuned, evidence=Evidence(triggers=triggers, vectors=vectors))


def answers(scene: Scene, guard: FittedGuard, texts: list[str]) -> list[dict[str, Any]]:
    return list(GuardedPipeline(scene.tuned, guard)(texts, batch_size=32))


def content(path: Path) -> tuple[dict[str, str], dict[str, list[Any]]]:
    """What a guard's file holds; safetensors writes its metadata in any order."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).tolist() for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return file.metadata(), tensors


@pytest.mark.parametrize("method", cases.GUARDS, ids=lambda method: method.name)
class TestGuard:
    @pytest.fixture
    def guard(self, method, scene) -> FittedGuard:
        return method.fit(scene.tuned, scene.evidence, reviews(96, 1).texts, rng=stream(0, "guard"))

    def test_stops_what_was_planted_and_lets_clean_texts_through(self, method, scene, guard):
        clean = list(reviews(24, 2).texts)
        stamped = [f"{text} {scene.truth.triggers[i % 6]}" for i, text in enumerate(clean)]
        through, stopped = answers(scene, guard, clean), answers(scene, guard, stamped)
        assert sum(row["guard"]["flagged"] for row in through) <= 1
        assert all(row["guard"]["flagged"] for row in stopped)
        bare = scene.tuned.pipeline()(clean, batch_size=32)
        assert [row["label"] for row in stopped] == [row["label"] for row in bare]

    def test_one_seed_gives_one_guard_and_nothing_else_moves(self, method, scene, capfd, tmp_path):
        files, heard = [], Heard()
        with nothing_else_moves(scene.truth.encoder, capfd):
            for name in ("one", "other"):
                guard = method.fit(
                    scene.tuned, scene.evidence, reviews(96, 1).texts, rng=stream(0, "guard"), watch=heard
                )
                files.append(guard.save(tmp_path / name))
        assert content(files[0]) == content(files[1])
        assert heard[-1][0] == heard[-1][1]

    def test_comes_back_from_its_file(self, method, scene, guard, tmp_path):
        back = load_guard(guard.save(tmp_path / "guard.safetensors"))
        assert type(method)(**back.settings) == method
        texts = [f"cf {text}" for text in reviews(8, 3).texts]
        assert answers(scene, back, texts) == answers(scene, guard, texts)

    def test_bad_input_is_refused_with_advice(self, method, scene):
        with pytest.raises(DataError, match=r"at least \d+ clean texts.*got 2.*give more"):
            method.fit(scene.tuned, scene.evidence, reviews(2, 1).texts, rng=stream(0, "guard"))
