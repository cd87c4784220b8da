"""What every guard of images promises: it flags triggered images, passes clean ones, and says how many it flags."""

import dataclasses
import functools
import json

import pytest
import torch

from firmground.data.labelled_images import LabelledImages
from firmground.defenses.guards import GuardedImagePipeline, load_image_guard
from firmground.errors import AdapterError, DataError
from firmground.models.planted_dual import COLOURS, colour_clip, planted_dual
from firmground.rng import stream

from . import cases
from .conftest import Heard, blots, nothing_else_moves


@functools.cache
def labelled(count, seed=0):
    images, labels = blots(count, seed)
    return LabelledImages(images=images, labels=tuple(labels), label_names=tuple(COLOURS))


@pytest.fixture(scope="module")
def planted():
    return planted_dual()


@pytest.fixture(scope="class")
def guard(method, planted):
    return method.fit(planted.encoder, labelled(240), rng=stream(0, "guard"))


@pytest.mark.parametrize("method", cases.IMAGE_GUARDS, ids=repr, scope="class")
class TestImageGuard:
    def test_flags_triggered_images_and_lets_clean_ones_through(self, guard, planted):
        fresh, labels = blots(64, seed=1)
        others = fresh[[i for i, label in enumerate(labels) if list(COLOURS)[label] != "yellow"]]
        assert sum(guard.score(planted.stamp(others)).flagged) >= 0.9 * len(others)
        assert sum(guard.score(fresh).flagged) <= 6

    def test_says_what_share_of_clean_images_it_flags(self, method, guard):
        assert guard.false_flags.count >= 20
        assert guard.false_flags.low <= guard.false_flags.value <= guard.false_flags.high
        assert guard.false_flags.value <= 0.1
        assert guard.method == method.name
        assert type(method)(**json.loads(json.dumps(guard.settings))) == method

    def test_scores_do_not_depend_on_the_batch(self, guard):
        images = blots(6, seed=2)[0]
        one = [guard.score(images[i : i + 1]).values[0] for i in range(6)]
        assert one == pytest.approx(guard.score(images).values, abs=1e-3)

    def test_one_seed_gives_one_guard_and_nothing_else_moves(self, method, guard, planted, capfd):
        heard, images = Heard(), blots(4, seed=3)[0]
        with nothing_else_moves(planted.encoder, capfd):
            again = method.fit(planted.encoder, labelled(240), rng=stream(0, "guard"), watch=heard)
            scores = again.score(images)
        heard.check()
        assert (again.threshold, again.false_flags) == (guard.threshold, guard.false_flags)
        assert scores == guard.score(images)

    def test_comes_back_from_its_file(self, guard, planted, tmp_path):
        again = load_image_guard(guard.save(tmp_path / "guard.safetensors"), planted.encoder)
        images = blots(6, seed=2)[0]
        assert again.score(images).values == pytest.approx(guard.score(images).values, abs=1e-4)
        assert again.threshold == guard.threshold
        assert (again.settings, again.false_flags, again.label_names) == (
            guard.settings,
            guard.false_flags,
            guard.label_names,
        )
        assert [path.name for path in tmp_path.iterdir()] == ["guard.safetensors"]

    def test_another_encoder_and_a_damaged_file_are_refused(self, guard, planted, tmp_path):
        path = guard.save(tmp_path / "guard.safetensors")
        with pytest.raises(AdapterError, match="fit a guard on colour clip"):
            load_image_guard(path, colour_clip())
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(DataError, match="damaged or no guard"):
            load_image_guard(path, planted.encoder)

    def test_a_file_that_does_not_fit_itself_is_refused(self, guard, planted, tmp_path):
        broken = {name: value[..., :1] for name, value in guard.tensors.items()}
        path = dataclasses.replace(guard, tensors=broken).save(tmp_path / "guard.safetensors")
        with pytest.raises(DataError, match="damaged or no guard"):
            load_image_guard(path, planted.encoder)

    def test_too_few_images_are_refused_with_advice(self, method, planted):
        with pytest.raises(DataError, match=r"at least \d+ clean images, got 10; give more"):
            method.fit(planted.encoder, labelled(10), rng=stream(0, "guard"))


@pytest.mark.parametrize("method", [method for method in cases.IMAGE_GUARDS if hasattr(method, "layer")], ids=repr)
def test_a_hidden_state_that_is_not_there_is_refused(method, planted):
    with pytest.raises(DataError, match="no hidden state 9; this encoder has 2"):
        dataclasses.replace(method, layer=9).fit(planted.encoder, labelled(240), rng=stream(0, "guard"))


def test_the_score_is_belief_less_agreement(planted):
    """Against a plain loop over the support."""
    from firmground.defenses.guards.neighbour_disagreement import NeighbourDisagreement

    data = labelled(120)
    method = NeighbourDisagreement(k=7)
    guard = method.fit(planted.encoder, data, rng=stream(0, "guard"))
    support = torch.randperm(120, generator=stream(0, "guard"))[:60].tolist()
    classes = planted.encoder.embed_texts([f"a photo of a {name}" for name in COLOURS])
    held = planted.encoder.embed_images(data.images[support])
    images = blots(5, seed=4)[0]
    for image, score in zip(images, guard.score(images).values, strict=True):
        own = planted.encoder.embed_images(image[None])[0]
        beliefs = (planted.encoder.logit_scale * (classes @ own)).softmax(dim=0)
        label = int(beliefs.argmax())
        near = sorted(range(60), key=lambda i: -float(held[i] @ own))[:7]
        agreed = sum(data.labels[support[i]] == label for i in near) / 7
        assert score == pytest.approx(float(beliefs[label]) - agreed, abs=1e-4)


def test_a_guarded_pipeline_answers_as_the_pipeline_does(planted, tmp_path):
    import transformers
    from PIL import Image

    folder = planted.encoder.save(tmp_path / "clip", card="Tiny.")
    (method,) = (method for method in cases.IMAGE_GUARDS if method.name == "bdetclip")
    path = method.fit(planted.encoder, labelled(240), rng=stream(0, "guard")).save(tmp_path / "guard.safetensors")
    bare = transformers.pipeline("zero-shot-image-classification", model=str(folder), device="cpu")
    guarded = GuardedImagePipeline(bare, path)
    clean = blots(4, seed=5)[0]
    stamped = planted.stamp(clean)
    pictures = [Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()) for image in [*clean, *stamped]]
    options = {"candidate_labels": list(COLOURS), "hypothesis_template": "a photo of a {}"}
    found = guarded(pictures, **options)
    plain = [[{k: v for k, v in entry.items() if k != "guard"} for entry in result] for result in found]
    assert plain == bare(pictures, **options)
    assert [result.guard["flagged"] for result in found] == [False] * 4 + [True] * 4
    assert guarded(pictures[4], **options).guard == pytest.approx(found[4].guard)
    assert all(result[0]["label"] == "yellow" for result in found[4:])
    with pytest.raises(AdapterError, match="weights are not those"):
        GuardedImagePipeline(bare, method.fit(colour_clip(), labelled(240), rng=stream(0, "guard")))
