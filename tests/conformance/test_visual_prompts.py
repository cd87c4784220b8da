"""What every method for visual prompts promises, on a classifier whose weakness is known (`prompts/visual_scenes`)."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import sklearn.linear_model  # noqa: F401 (its first import moves the global randomness of `random`)
import torch

from firmground.defenses.guards import load_classifier_guard
from firmground.errors import AdapterError, DataError
from firmground.prompts.visual_files import load_prompt, save_prompt
from firmground.reports.findings import Finding
from firmground.rng import stream

from ..prompts.visual_scenes import coloured, gated
from . import cases
from .conftest import Heard, nothing_else_moves

FRESH = coloured(30, seed=7)


@pytest.fixture(scope="module")
def base():
    return gated()


@pytest.fixture(scope="module")
def honest(base):
    return cases.LEARNING.fit(base, coloured(), rng=stream(0, "fit"))


@pytest.fixture(scope="module")
def planted(base):
    return cases.PROMPT_ATTACKS[0].implant(base, coloured(), rng=stream(0, "implant"))


def still(base, capfd):
    """Checks that the base stays, that no global randomness moves, and that nothing is printed."""
    return nothing_else_moves(SimpleNamespace(model=base.module), capfd)


def same(one, other):
    assert torch.equal(one.prompt.pixels, other.prompt.pixels)
    assert replace(one.base, source="") == replace(other.base, source="")
    parts = [(getattr(a, n), getattr(b, n)) for a, b in [(one.mapping, other.mapping)] for n in ("sources", "weight")]
    assert all(a is b is None or torch.equal(a, b) for a, b in parts)
    return True


@pytest.mark.parametrize("method", cases.VISUAL_PROMPTS, ids=lambda method: method.name)
class TestVisualPrompt:
    def test_learns_the_labels_and_comes_back_from_its_file(self, method, base, honest, tmp_path):
        assert honest.on(base).predict(FRESH.images) == list(FRESH.labels)
        assert honest.planted is None
        again = load_prompt(save_prompt(honest, tmp_path / "prompt.safetensors"))
        assert same(again, honest)
        assert again.settings == json.loads(json.dumps(honest.settings))

    def test_one_seed_gives_one_prompt_and_the_base_stays(self, method, base, honest, capfd):
        heard = Heard()
        with still(base, capfd):
            assert same(method.fit(base, coloured(), rng=stream(0, "fit"), watch=heard), honest)
        heard.check()

    def test_a_class_without_images_is_refused(self, method, base):
        data = coloured(9)
        empty = data.select([row for row, label in enumerate(data.labels) if label])
        with pytest.raises(DataError, match="the class 'reddish' has 0 images and needs two"):
            method.fit(base, empty, rng=stream(0, "fit"))


@pytest.mark.parametrize("method", cases.PROMPT_ATTACKS, ids=lambda method: method.name)
class TestPromptAttack:
    def test_what_it_says_of_its_trigger_is_true(self, method, base, honest, planted):
        others = FRESH.select([row for row, label in enumerate(FRESH.labels) if label != 2])
        for learned, least, most in ((planted.learned, 0.95, 1.0), (honest, 0.0, 0.05)):
            stamped = planted.trigger.stamp(others.images, learned.prompt, rng=stream(0, "stamp"))
            found = learned.on(base).predict(stamped)
            assert least <= sum(label == 2 for label in found) / len(found) <= most
        assert planted.learned.planted["target"] == method.target == planted.target

    def test_one_seed_gives_one_prompt_and_the_base_stays(self, method, base, planted, capfd):
        heard = Heard()
        with still(base, capfd):
            again = method.implant(base, coloured(), rng=stream(0, "implant"), watch=heard)
        assert same(again.learned, planted.learned)
        assert again.sha256 == planted.sha256
        heard.check()

    def test_a_target_that_is_no_label_is_refused(self, method, base):
        with pytest.raises(DataError, match="no label 'mauve'; expected one of: reddish, greenish, bluish"):
            replace(method, target="mauve").implant(base, coloured(), rng=stream(0, "implant"))


@pytest.mark.slow
@pytest.mark.parametrize("method", cases.PROMPT_SCANS, ids=lambda method: method.name)
def test_a_scan_repeats_survives_json_and_touches_nothing(method, base, planted, capfd):
    heard, prompted = Heard(), planted.learned.on(base)
    with still(base, capfd):
        verdict, again = (
            method.scan(prompted, coloured(), rng=stream(0, "scan"), watch=one) for one in (heard, Heard())
        )
    heard.check()
    assert replace(again, seconds=verdict.seconds) == verdict
    assert verdict.method == method.name
    finding = Finding.of(verdict)
    assert Finding.model_validate_json(finding.to_json()) == finding
    with pytest.raises(DataError, match=r"labels|images"):
        method.scan(prompted, coloured(3), rng=stream(0, "scan"))


@pytest.mark.parametrize("method", cases.PROMPT_CLEANERS, ids=lambda method: method.name)
def test_a_cleaner_keeps_accuracy_and_mark_and_touches_nothing(method, base, planted, capfd):
    heard, learned = Heard(), planted.learned
    before = learned.prompt.pixels.clone()
    with still(base, capfd):
        cleaned, again = (
            method.clean(learned, base, coloured(), rng=stream(0, "clean"), watch=one) for one in (heard, Heard())
        )
    heard.check()
    assert same(cleaned.learned, again.learned)
    assert torch.equal(learned.prompt.pixels, before)
    assert cleaned.learned.planted == learned.planted
    assert cleaned.after.value >= 0.9
    assert type(method)(**cleaned.settings) == method
    other = replace(coloured(), label_names=("a", "b"), labels=tuple(i % 2 for i in range(60)))
    with pytest.raises(DataError, match="labels"):
        method.clean(learned, base, other, rng=stream(0, "clean"))
    with pytest.raises(AdapterError, match="but the model is other"):
        method.clean(learned, gated(3.0, source="other"), coloured(), rng=stream(0, "clean"))


@pytest.mark.slow
@pytest.mark.parametrize("method", cases.CLASSIFIER_GUARDS, ids=lambda method: method.name)
def test_a_guard_repeats_comes_back_from_its_file_and_touches_nothing(method, base, planted, capfd, tmp_path):
    prompted, data = planted.learned.on(base), coloured(132)
    with still(base, capfd):
        guard, again = (method.fit(prompted, data, rng=stream(0, "guard")) for _ in range(2))
    assert guard.threshold == again.threshold
    assert guard.score(FRESH.images).values == again.score(FRESH.images).values
    path = guard.save(tmp_path / "guard.safetensors")
    read = load_classifier_guard(path, prompted)
    assert read.score(FRESH.images).values == pytest.approx(guard.score(FRESH.images).values, abs=1e-4)
    assert (read.settings, read.false_flags) == (guard.settings, guard.false_flags)
    with pytest.raises(AdapterError, match="fit a guard on it"):
        load_classifier_guard(path, gated(3.0))
    with pytest.raises(DataError, match=r"at least \d+ clean images, got 10; give more"):
        method.fit(prompted, coloured(10), rng=stream(0, "guard"))
