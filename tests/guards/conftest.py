"""Planted tiny encoders with tuned prompts on them, and guards fitted to those."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from firmground.models import tiny
from firmground.prompts.soft import PrefixTuning, PromptTuning
from firmground.rng import stream
from firmground.types import Readout

sys.path.insert(0, str(Path(__file__).parent))

from guard_scenes import Scene, colours, evidence_of, fit, reviews


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
    method = PrefixTuning(virtual_tokens=3, epochs=10, head_step_size=1e-2)
    tuned = method.fit(planted.encoder, colours(200, 0), rng=stream(0, "tune"))
    guard = fit(tuned, evidence_of(planted), colours(160, 1).texts)
    return Scene(planted=planted, tuned=tuned, guard=guard)
