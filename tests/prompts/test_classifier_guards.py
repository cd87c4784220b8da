"""Guards of image classifiers, behind a prompt of which the weakness is known."""

from __future__ import annotations

import json

import pytest
import torch
from planted_scenes import OPEN, SHUT, TARGET, prompted, stamped
from visual_scenes import coloured, gated

from firmground.defenses.guards import (
    CLASSIFIER_GUARDS,
    BaseDisagreement,
    DoubleMasking,
    GuardedClassifierPipeline,
    PartSwap,
    Purification,
    SentiNet,
    Strip,
    load_classifier_guard,
)
from firmground.defenses.guards._masks import covered, squares
from firmground.errors import AdapterError, DataError
from firmground.prompts.prompted import PromptedClassifier
from firmground.rng import stream

CASES = (
    BaseDisagreement(masks=2, size=0.5),
    DoubleMasking(masks=2, size=0.6),
    PartSwap(squares=2, size=0.5, others=4),
    Purification(),
    Purification(by="blur"),
    Purification(by="autoencoder", components=8),
    SentiNet(masks=2, size=0.5, others=4),
    Strip(overlays=4),
)


@pytest.fixture(scope="module")
def others():
    fresh = coloured(60, seed=5)
    return fresh.select([row for row, label in enumerate(fresh.labels) if label != TARGET])


def test_every_guard_has_a_case():
    assert {type(case) for case in CASES} == set(CLASSIFIER_GUARDS)


@pytest.fixture(scope="class")
def guard(method):
    return method.fit(prompted(OPEN), coloured(160), rng=stream(0, "guard"))


@pytest.mark.parametrize(
    "method", CASES, ids=lambda method: f"{method.name}-{getattr(method, 'by', '')}", scope="class"
)
class TestGuard:
    def test_lets_clean_images_through_and_keeps_their_labels(self, method, guard, others):
        assert sum(guard.score(others.images).flagged) <= 6
        right = sum(a == b for a, b in zip(guard.predict(others.images), others.labels, strict=True))
        assert right >= len(others) - 4
        assert guard.false_flags.count >= 20
        assert guard.method == method.name
        assert type(method)(**json.loads(json.dumps(guard.settings))) == method

    def test_scores_do_not_depend_on_the_batch(self, guard, others):
        images = others.images[:4]
        one = [guard.score(image[None]).values[0] for image in images]
        assert one == pytest.approx(guard.score(images).values, abs=1e-3)

    def test_one_seed_gives_one_guard(self, method, guard, others):
        again = method.fit(prompted(OPEN), coloured(160), rng=stream(0, "guard"))
        assert (again.threshold, again.false_flags) == (guard.threshold, guard.false_flags)

    def test_comes_back_from_its_file(self, guard, others, tmp_path):
        path = guard.save(tmp_path / "guard.safetensors")
        again = load_classifier_guard(path, prompted(OPEN))
        assert again.score(others.images[:4]).values == pytest.approx(guard.score(others.images[:4]).values, abs=1e-4)
        assert (again.threshold, again.settings) == (guard.threshold, guard.settings)
        with pytest.raises(AdapterError, match="or has another prompt; fit a guard on it"):
            load_classifier_guard(path, prompted(SHUT))
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(DataError, match="damaged or no guard"):
            load_classifier_guard(path, prompted(OPEN))

    def test_the_classifier_sees_an_image_once(self, guard, others, monkeypatch):
        images, seen = others.images[:8], []
        alone = guard.classifier.predict(images), guard.score(images), guard.predict(images)
        seat, logits = guard.classifier.prompt.seat, PromptedClassifier.logits

        def counted(self, shown, **rest):
            seen.append(seat(shown))
            return logits(self, shown, **rest)

        monkeypatch.setattr(PromptedClassifier, "logits", counted)
        found = guard.answer(images)
        assert sum(torch.equal(shown, seat(images)) for shown in seen) == 1
        assert (found.labels, found.scores, found.repaired) == alone

    def test_too_few_images_are_refused(self, method):
        with pytest.raises(DataError, match=r"at least \d+ clean images, got 10; give more"):
            method.fit(prompted(OPEN), coloured(10), rng=stream(0, "guard"))


@pytest.mark.parametrize("method", [BaseDisagreement(), *CASES[:3]], ids=repr)
def test_these_find_and_mend_triggered_images(method, others):
    guard = method.fit(prompted(OPEN), coloured(160), rng=stream(0, "guard"))
    bad = stamped(others.images)
    assert prompted(OPEN).predict(bad) == [TARGET] * len(bad)
    assert sum(guard.score(bad).flagged) >= 0.9 * len(bad)
    assert sum(a == b for a, b in zip(guard.predict(bad), others.labels, strict=True)) >= 0.9 * len(bad)


def test_a_base_without_a_prompt_has_nothing_to_disagree_with():
    with pytest.raises(AdapterError, match="has no prompt; use strip or double-masking"):
        BaseDisagreement().fit(gated(), coloured(160), rng=stream(0, "guard"))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(DataError, match="from 0 to 1, got 2"):
        Strip(overlays=1, flag_rate=2).fit(prompted(OPEN), coloured(60), rng=stream(0, "guard"))
    for wrong in ({"masks": 1}, {"size": 1.0}, {"others": 0}):
        with pytest.raises(DataError, match="expected two squares a side or more"):
            SentiNet(**wrong)


def test_squares_cover_every_pixel():
    found = covered(torch.ones(1, 3, 20, 20), squares(20, 3, 0.4))
    assert len(found) == 9
    assert (torch.stack(found).amin(dim=0) == 0.5).all()


def test_a_guarded_pipeline_answers_as_the_pipeline_does(tmp_path):
    import transformers
    from PIL import Image

    settings = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        num_labels=3,
    )  # fmt: skip
    torch.random.manual_seed(0)
    transformers.ViTForImageClassification(settings).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    bare = transformers.pipeline("image-classification", model=str(tmp_path), device="cpu")
    from firmground.defenses.guards.classifier_pipeline import classifier_of

    guard = DoubleMasking(flag_rate=0.5).fit(classifier_of(bare), coloured(60), rng=stream(0, "guard"))
    guarded = GuardedClassifierPipeline(bare, guard.save(tmp_path / "guard.safetensors"))
    pictures = [Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()) for image in coloured(4).images]
    found = guarded(pictures)
    assert [[{k: v for k, v in entry.items() if k != "guard"} for entry in result] for result in found] == bare(
        pictures
    )
    assert all(set(result.guard) >= {"flagged", "score"} for result in found)
    assert any("label" in result.guard for result in found) == any(result.guard["flagged"] for result in found)
