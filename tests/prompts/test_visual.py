"""Visual prompts on a classifier whose right prompt and right mapping are known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from visual_scenes import SIZE, TRUTH, WIDTH, Gated, coloured, gated

from firmground.errors import AdapterError, BrokenModelError, DataError, UnsupportedModelError
from firmground.models.classifiers import ImageClassifier
from firmground.models.planted_dual import COLOURS, colour_clip
from firmground.models.preprocessing import Preprocessing
from firmground.prompts import seating
from firmground.prompts.mappings import LabelMapping, by_frequency, by_index, by_meaning, votes
from firmground.prompts.seating import seated
from firmground.prompts.visual import PromptShape, VisualPrompt
from firmground.prompts.visual_prompting import VisualPrompting
from firmground.rng import stream

SHAPES = (
    PromptShape(form="padding", image_size=SIZE, width=WIDTH),
    PromptShape(form="fixed-patch", image_size=SIZE, side=6, place="bottom-right"),
    PromptShape(form="random-patch", image_size=SIZE, side=6),
    PromptShape(form="full-image", image_size=SIZE),
)
QUICK = VisualPrompting(width=WIDTH / SIZE, side=0.3, epochs=6, batch_size=16, step_size=0.5)


def made(shape: PromptShape, seed: int = 0) -> VisualPrompt:
    raw = 2 * torch.randn(shape.tensor_shape, generator=stream(seed, "raw"))
    return VisualPrompt(shape=shape, pixels=shape.bounded(raw))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.form)
class TestForm:
    def test_gives_valid_images_of_the_canvas_from_any_size(self, shape):
        for size in ((20, 20), (31, 57), (SIZE, SIZE), (1, 1)):
            canvas = made(shape).apply(torch.rand(3, 3, *size), rng=stream(0, "apply"))
            assert canvas.shape == (3, 3, SIZE, SIZE)
            assert canvas.min() >= 0
            assert canvas.max() <= 1

    def test_gradients_reach_pixels_and_images(self, shape):
        raw = torch.zeros(shape.tensor_shape, requires_grad=True)
        images = torch.full((2, 3, 20, 20), 0.5, requires_grad=True)
        VisualPrompt(shape=shape, pixels=shape.bounded(raw)).apply(images).sum().backward()
        covered = shape.border.expand(shape.tensor_shape) > 0 if shape.form == "padding" else raw.grad == raw.grad
        assert (raw.grad[covered] != 0).all()
        assert (raw.grad[~covered] == 0).all()
        assert (images.grad != 0).any()

    def test_an_image_is_prompted_alike_in_every_batch(self, shape):
        images = torch.rand(4, 3, 20, 20)
        prompt = made(shape)
        assert torch.equal(prompt.apply(images)[2:3], prompt.apply(images[2:3]))

    @pytest.mark.parametrize(
        ("bad", "advice"),
        [
            (torch.rand(2, 1, 20, 20), r"shape \(batch, 3, height, width\)"),
            (torch.full((1, 3, 20, 20), 2.0), r"must lie in \[0, 1\]"),
            (torch.full((1, 3, 20, 20), float("nan")), r"must lie in \[0, 1\]"),
            (torch.zeros(1, 3, 20, 20, dtype=torch.uint8), "divide 8-bit images by 255"),
        ],
    )
    def test_bad_images_are_refused(self, shape, bad, advice):
        with pytest.raises(DataError, match=advice):
            made(shape).apply(bad)

    @pytest.mark.parametrize("value", [1.5, -1.5, float("nan"), float("inf")])
    def test_bad_pixels_are_refused(self, shape, value):
        with pytest.raises(DataError, match="must lie in"):
            VisualPrompt(shape=shape, pixels=torch.full(shape.tensor_shape, value))
        with pytest.raises(DataError, match="has the shape"):
            VisualPrompt(shape=shape, pixels=torch.zeros(3, 2, 2))


def test_each_form_stands_where_it_says():
    images = torch.full((2, 3, SIZE, SIZE), 0.5)
    changed = [(made(shape).apply(images, rng=stream(0, "a")) != 0.5).all(dim=1).float() for shape in SHAPES]
    inside = changed[0][:, WIDTH:-WIDTH, WIDTH:-WIDTH]
    assert inside.sum() == 0
    assert changed[0].mean() == 1 - inside[0].numel() / SIZE**2
    assert changed[1][:, -6:, -6:].mean() == 1
    assert changed[1].sum() == 2 * 36
    assert changed[2].flatten(1).sum(dim=1).tolist() == [36, 36]
    assert not torch.equal(changed[2][0], changed[2][1])
    assert changed[3].mean() == 1


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"form": "frame"}, "a form among padding, fixed-patch"),
        ({"form": "padding", "width": 12}, "leaves no image on a canvas of 24; choose a width of 1 to 11"),
        ({"form": "fixed-patch", "side": 25}, "a patch of 25 pixels does not fit"),
        ({"form": "fixed-patch", "side": 5, "place": "left"}, "a place among"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(settings, advice):
    with pytest.raises(DataError, match=advice):
        PromptShape(image_size=SIZE, **settings)


class TestMappings:
    def test_frequency_is_greedy_over_the_count_matrix(self):
        counts = torch.tensor([[9, 8, 0], [7, 1, 0], [0, 0, 0], [0, 2, 5]])
        assert by_frequency(counts).tolist() == [0, 1, 3]  # label 1 likes class 0 best, and that is taken

    def test_votes_count_classes_by_labels(self):
        found = votes(torch.tensor([1, 1, 3]), torch.tensor([0, 0, 2]), 4, 3)
        assert found.tolist() == [[0, 0, 0], [2, 0, 0], [0, 0, 0], [0, 0, 1]]

    def test_meaning_finds_the_same_names(self):
        names = ["blue", "red", "white", "green"]
        found = by_meaning(colour_clip(), list(COLOURS), names, ("a photo of a {}",))
        assert [list(COLOURS)[i] for i in found.tolist()] == names

    def test_more_labels_than_classes_are_refused(self):
        with pytest.raises(DataError, match="map them fully connected"):
            by_index(3, 4)

    @pytest.mark.parametrize(
        ("settings", "advice"),
        [
            ({"kind": "index", "sources": torch.tensor([0, 5])}, "names class 5, and the classifier has 5"),
            ({"kind": "index", "sources": torch.tensor([0, -1])}, "names class -1"),
            ({"kind": "index", "sources": torch.tensor([0.0, 1.0])}, "whole numbers"),
            ({"kind": "iterated"}, "names one class for each label"),
            ({"kind": "fully-connected", "weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, "from 5 classes"),
            ({"kind": "fully-connected", "weight": torch.full((2, 5), torch.nan), "bias": torch.zeros(2)}, "finite"),
            ({"kind": "guess", "sources": torch.tensor([0, 1])}, "a label mapping among"),
        ],
    )
    def test_mappings_that_do_not_fit_are_refused(self, settings, advice):
        with pytest.raises(DataError, match=advice):
            LabelMapping(classes=5, **settings)


class TestSeating:
    def test_seats_as_the_prompt_itself_does(self):
        data = coloured(10)
        for shape in SHAPES:
            prompt = made(shape)
            again = prompt.apply(seated(data, shape).images, rng=stream(0, "a"))
            assert torch.equal(again, prompt.apply(data.images, rng=stream(0, "a")))

    def test_more_than_memory_should_hold_stays_as_it_is(self, monkeypatch):
        data = coloured(10)
        monkeypatch.setattr(seating, "MOST", 10 * 3 * 16 * 16 * 4 - 1)
        assert seated(data, SHAPES[0]) is data
        found = QUICK.fit(gated(), coloured(), rng=stream(0, "fit"))
        monkeypatch.undo()
        assert torch.equal(found.prompt.pixels, QUICK.fit(gated(), coloured(), rng=stream(0, "fit")).prompt.pixels)


@pytest.fixture(scope="module")
def base():
    return gated()


@pytest.fixture(scope="module")
def fitted(base):
    return QUICK.fit(base, coloured(), rng=stream(0, "fit"))


class TestLearning:
    def test_finds_the_known_prompt_and_mapping(self, base, fitted):
        """Red is all that opens the gate, and blue closes it."""
        border = fitted.prompt.shape.border[0] > 0
        red, _, blue = (fitted.prompt.pixels[i][border] for i in range(3))
        assert red.min() > 0.9
        assert blue.max() < 0.1
        assert fitted.mapping.sources.tolist() == list(TRUTH.values())
        assert fitted.accuracy.value == 1
        fresh = coloured(30, seed=1)
        assert fitted.on(base).predict(fresh.images) == list(fresh.labels)

    def test_it_is_the_prompt_that_does_it(self, base, fitted):
        fresh = coloured(30, seed=1)
        swapped = VisualPrompt(shape=fitted.prompt.shape, pixels=fitted.prompt.pixels.flip(0))  # blue, and no red
        found = dataclasses.replace(fitted, prompt=swapped).on(base).predict(fresh.images)
        assert not [1 for label, truth in zip(found, fresh.labels, strict=True) if label == truth]

    def test_the_base_stays_and_one_seed_gives_one_prompt(self, base, fitted):
        before, state = base.module.gain.clone(), torch.get_rng_state()
        again = QUICK.fit(base, coloured(), rng=stream(0, "fit"))
        assert torch.equal(again.prompt.pixels, fitted.prompt.pixels)
        assert torch.equal(before, base.module.gain)
        assert base.module.gain.grad is None
        assert torch.equal(state, torch.get_rng_state())

    @pytest.mark.parametrize("mapping", ["frequency", "fully-connected"])
    def test_other_mappings_learn_too(self, base, mapping):
        how = dataclasses.replace(QUICK, mapping=mapping, mapping_step_size=0.1, augmentation="trivial")
        assert how.fit(base, coloured(), rng=stream(0, "fit")).accuracy.value > 0.6

    def test_by_index_it_stays_by_index(self, base):
        found = dataclasses.replace(QUICK, mapping="index", epochs=1).fit(base, coloured(), rng=stream(0, "fit"))
        assert found.mapping.sources.tolist() == [0, 1, 2]

    def test_a_killed_run_goes_on_to_the_same_prompt(self, base, fitted, tmp_path):
        def kill(step, total, stage, **scalars):
            if stage == "learning the prompt" and step == total // 2 + 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            QUICK.fit(base, coloured(), rng=stream(0, "fit"), watch=kill, resume=tmp_path)
        heard = []
        again = QUICK.fit(
            base, coloured(), rng=stream(0, "fit"), watch=lambda step, *_, **__: heard.append(step), resume=tmp_path
        )
        assert heard[0] > 1
        assert torch.equal(again.prompt.pixels, fitted.prompt.pixels)
        assert again.mapping.sources.tolist() == fitted.mapping.sources.tolist()
        with pytest.raises(BrokenModelError, match="checkpoint of another run"):
            dataclasses.replace(QUICK, epochs=7).fit(base, coloured(), rng=stream(0, "fit"), resume=tmp_path)
        with pytest.raises(BrokenModelError, match="another run: its images is"):  # as many, with the same labels
            QUICK.fit(base, coloured(seed=1), rng=stream(0, "fit"), resume=tmp_path)

    def test_a_dual_encoder_reads_the_labels_as_texts(self):
        encoder = colour_clip()
        data = dataclasses.replace(coloured(24), label_names=("red", "green", "blue"))
        how = dataclasses.replace(QUICK, mapping="semantic", epochs=1)
        found = how.fit(encoder, data, rng=stream(0, "fit"))
        assert found.mapping.sources.tolist() == [0, 1, 2]
        assert found.accuracy.value > 0.9
        assert found.on(encoder).predict(data.images[:3]) == [0, 1, 2]
        with pytest.raises(AdapterError, match=r"learned on colour clip 0 .* but the model is colour clip 1"):
            found.on(colour_clip(1))

    def test_another_base_is_refused_by_both_names(self, fitted):
        with pytest.raises(AdapterError, match=r"learned on gated .* but the model is other .*; use gated"):
            fitted.on(gated(19.0, source="other"))
        with pytest.raises(AdapterError, match="not on a dual encoder"):
            fitted.on(colour_clip())

    @pytest.mark.parametrize(
        ("change", "advice"),
        [
            ({"label_names": ("a", "b", "c", "d")}, "the class 'd' has 0 images and needs two"),
            ({"label_names": tuple("abcdef"), "labels": tuple(i % 6 for i in range(60))}, "only 5 classes"),
        ],
    )
    def test_data_that_do_not_fit_are_refused(self, base, change, advice):
        with pytest.raises(DataError, match=advice):
            QUICK.fit(base, dataclasses.replace(coloured(), **change), rng=stream(0, "fit"))

    def test_semantics_need_a_model_that_reads(self, base):
        with pytest.raises(DataError, match="needs a model that reads texts"):
            dataclasses.replace(QUICK, mapping="semantic").fit(base, coloured(), rng=stream(0, "fit"))


class TestClassifier:
    PLAIN = Preprocessing(size=SIZE, resize=SIZE, filter="bilinear")

    def test_a_model_without_logits_is_refused(self):
        with pytest.raises(UnsupportedModelError, match=r"must give logits of shape \(1, 5\)"):
            ImageClassifier.of_module(torch.nn.Identity(), 5, self.PLAIN)
        with pytest.raises(UnsupportedModelError, match=r"gave shape \(1, 5\)"):
            ImageClassifier.of_module(Gated(), 4, self.PLAIN)

    def test_a_canvas_is_not_cropped(self):
        cropping = Preprocessing(size=SIZE, resize=2 * SIZE, filter="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3)
        base = ImageClassifier.of_module(Gated(), 5, cropping)
        canvas = torch.rand(2, 3, SIZE, SIZE)
        assert torch.allclose(base.read(canvas), Gated()(canvas))
        assert not torch.allclose(base.logits(canvas), Gated()(canvas))
        with pytest.raises(DataError, match="expected a canvas of 24 x 24 pixels, got 20 x 24"):
            base.read(canvas[:, :, :20])

    def test_a_hugging_face_classifier_is_loaded_with_its_names(self, tmp_path):
        import transformers

        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label={0: "cat", 1: "dog"}
        )
        torch.manual_seed(0)
        model = transformers.ResNetForImageClassification(config).eval()
        model.save_pretrained(tmp_path)
        (tmp_path / "preprocessor_config.json").write_text(self.PLAIN.to_json())
        base = ImageClassifier.load(tmp_path)
        assert base.class_names == ("cat", "dog")
        images = torch.rand(2, 3, SIZE, SIZE)
        assert torch.allclose(base.logits(images), model(self.PLAIN(images)).logits, atol=1e-5)
        (tmp_path / "model.safetensors").write_bytes(b"no")
        with pytest.raises(BrokenModelError, match="truncated or no safetensors"):
            ImageClassifier.load(tmp_path)
