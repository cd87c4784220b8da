"""What every prompt method promises: the encoder stays, a seed repeats, what was saved comes back."""

from __future__ import annotations

import pytest
import torch

from firmground.errors import AdapterError, DataError
from firmground.models import tiny
from firmground.models.saving import save_encoder
from firmground.prompts.tuned import load_tuned
from firmground.rng import stream

from . import cases
from .conftest import Heard, nothing_else_moves, reviews


@pytest.mark.parametrize("method", cases.PROMPTS, ids=lambda method: type(method).__name__)
class TestPrompt:
    def test_one_seed_gives_one_prompt_and_the_encoder_stays(self, method, clean, capfd):
        heard = Heard()
        data = reviews(48, 0)
        with nothing_else_moves(clean, capfd):
            one, other = (method.fit(clean, data, rng=stream(0, "fit"), watch=heard) for _ in range(2))
        state = other.model.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in one.model.state_dict().items())
        assert one.label_names == data.label_names
        assert set(one.predict(data.texts)) <= {0, 1}
        assert heard[-1][0] == heard[-1][1]

    def test_what_was_saved_comes_back(self, method, tmp_path):
        from firmground.models.language import LanguageEncoder

        made = tiny.clean_bert()
        folder = save_encoder(made.model, made.tokenizer, tmp_path / "encoder", card="A tiny encoder.")
        data = reviews(48, 0)
        tuned = method.fit(LanguageEncoder.load(folder), data, rng=stream(0, "fit"))
        back = load_tuned(folder, tuned.save(tmp_path / "prompt"))
        assert back.predict(data.texts) == tuned.predict(data.texts)
        assert (back.task, back.label_names, back.base_sha256) == (tuned.task, tuned.label_names, tuned.base_sha256)
        other = tiny.clean_bert(1)
        save_encoder(other.model, other.tokenizer, tmp_path / "other", card="Another.")
        with pytest.raises(AdapterError):
            load_tuned(tmp_path / "other", tmp_path / "prompt")

    def test_bad_input_is_refused_with_advice(self, method, clean, capfd):
        with nothing_else_moves(clean, capfd), pytest.raises(DataError, match=r"needs four samples.*got 2"):
            method.fit(clean, reviews(2, 0), rng=stream(0, "fit"))
