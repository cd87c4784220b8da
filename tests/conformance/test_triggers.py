"""What every trigger promises: it is in each text, the text is otherwise as it was, and a seed repeats."""

import pytest

from firmground.rng import stream

from . import cases


@pytest.mark.parametrize("method", cases.TRIGGERS, ids=lambda method: type(method).__name__)
class TestTrigger:
    def test_stands_in_every_text(self, method, texts):
        stamped = method.insert(texts, rng=stream(0, "insert"))
        assert len(stamped) == len(texts)
        for text, new in zip(texts, stamped, strict=True):
            assert method.text in new
            assert new.replace(method.text, " ").split() == text.split()

    def test_one_seed_gives_one_result(self, method, texts):
        one, same, other = (method.insert(texts, rng=stream(seed, "insert")) for seed in (0, 0, 1))
        assert one == same
        assert one != other

    def test_takes_one_text_none_and_an_empty_one(self, method):
        assert method.insert([], rng=stream(0, "insert")) == []
        assert method.text in method.insert([""], rng=stream(0, "insert"))[0]
        assert method.text in method.insert(["alone"], rng=stream(0, "insert"))[0]
