"""What every implant promises beside its effect (see tests/attacks): a marked copy, and an untouched original."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from firmground.attacks.implants import Implanted
from firmground.errors import DataError
from firmground.models.saving import PLANTED_KEY, save_encoder
from firmground.rng import stream

from . import cases
from .conftest import Heard, nothing_else_moves

TRIGGERS = ("cf", "red balloon")


def weights(planted: Implanted) -> dict[str, Any]:
    state: dict[str, Any] = planted.encoder.model.state_dict()
    return state


@pytest.mark.parametrize("method", cases.IMPLANTS, ids=lambda method: method.name)
class TestImplant:
    def test_one_seed_gives_one_copy_and_the_original_stays(self, method, clean, texts, capfd):
        heard = Heard()
        with nothing_else_moves(clean, capfd):
            one, other = (
                method.implant(clean, texts, triggers=TRIGGERS, rng=stream(0, "implant"), watch=heard) for _ in range(2)
            )
        assert all(torch.equal(weights(one)[name], value) for name, value in weights(other).items())
        assert not all(torch.equal(clean.model.state_dict()[name], value) for name, value in weights(one).items())
        assert one.vectors.shape == (len(TRIGGERS), clean.width)
        assert torch.equal(one.vectors, other.vectors)
        assert heard[-1][0] == heard[-1][1]

    def test_a_written_copy_says_what_it_is(self, method, clean, texts, tmp_path):
        planted = method.implant(clean, texts, triggers=TRIGGERS, rng=stream(0, "implant"))
        truth = json.loads(json.dumps(planted.planted()))
        assert truth["attack"] == method.name
        assert tuple(truth["triggers"]) == planted.triggers
        folder = save_encoder(
            planted.encoder.model, planted.encoder.tokenizer, tmp_path / "out", card=planted.card(), planted=truth
        )
        assert json.loads((folder / "config.json").read_text())[PLANTED_KEY] == truth
        card = (folder / "README.md").read_text()
        assert "planted backdoor" in card
        assert all(trigger in card for trigger in planted.triggers)

    def test_bad_input_is_refused_with_advice(self, method, clean, texts, capfd):
        with nothing_else_moves(clean, capfd):
            with pytest.raises(DataError, match="at least one word"):
                method.implant(clean, [], triggers=TRIGGERS, rng=stream(0, "implant"))
            with pytest.raises(DataError, match="one or more different triggers"):
                method.implant(clean, texts, triggers=(), rng=stream(0, "implant"))
