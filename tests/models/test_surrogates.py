"""Surrogates: the layers and embeddings of any image tower, at the images' own size, with gradients to every pixel."""

import pytest
import torch

from firmground.attacks.evasion import PRM
from firmground.errors import UnsupportedModelError
from firmground.models.classifiers import ImageClassifier
from firmground.models.preprocessing import Preprocessing
from firmground.models.surrogates import Surrogate, surrogate_of, surrogates_of
from firmground.models.tiny_dual import convnext_dual, convolutional_dual, tiny_clip
from firmground.rng import stream

SQUARE = Preprocessing(size=32, resize=32)


def images(height=48, width=48, count=2):
    return torch.rand(count, 3, height, width, generator=stream(0, "images"))


def tiny_siglip():
    """A SigLIP tower without its texts."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32,
                patch_size=8,
            )
        )  # fmt: skip


def small_network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, stride=2),
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 5),
        )  # fmt: skip


@pytest.mark.parametrize("make", [tiny_clip, convolutional_dual, convnext_dual])
def test_embeds_as_the_dual_encoder_does(make):
    encoder = make()
    found = Surrogate.of(encoder)
    assert torch.allclose(found.embed(images()), encoder.embed_images(images()), atol=1e-5)
    expected = encoder.hidden_states(images())
    layers = found.features(images()).layers
    assert len(layers) == len(expected)
    for layer, state in zip(layers, expected, strict=True):
        assert torch.allclose(layer, state.flatten(2).transpose(1, 2) if state.ndim == 4 else state, atol=1e-5)


def test_looks_at_images_at_their_own_size():
    assert Surrogate.of(tiny_clip()).features(images(48, 80)).layers[0].shape == (2, 1 + 6 * 10, 64)
    assert Surrogate.of(convolutional_dual()).features(images(64, 96)).layers[0].shape[1] == 16 * 24
    small = Surrogate.of(tiny_clip()).features(images(9, 9)).layers[0]
    assert small.shape == (2, 37, 64), "what is too small is enlarged"
    fixed = Surrogate.of_module(small_network(), ["0"], SQUARE)
    assert fixed.features(images(48, 80)).layers[0].shape == (2, 15 * 15, 8)
    free = Surrogate.of_module(small_network(), ["0"], SQUARE, any_size=True)
    assert free.features(images(48, 80)).layers[0].shape == (2, 23 * 39, 8)


def test_gradients_reach_pixels_beyond_the_range():
    leaf = (images() * 3 - 1).requires_grad_()
    Surrogate.of(tiny_clip()).embed(leaf)[:, 0].sum().backward()
    assert (leaf.grad != 0).float().mean() > 0.99


def test_class_tokens_are_told_from_patches():
    clip, siglip = Surrogate.of(tiny_clip()), Surrogate.of_tower(tiny_siglip(), SQUARE)
    for surrogate, expected in ((clip, 1), (siglip, 0), (Surrogate.of(convolutional_dual()), 0)):
        for size in ((48, 48), (48, 80)):
            layer = surrogate.features(images(*size)).layers[-1]
            assert surrogate.class_tokens(images(*size), layer) == expected
    assert len(clip.blocks) == 2
    assert len(siglip.blocks) == 2


def test_classifiers_and_modules_are_attacked_like_encoders():
    from transformers import ResNetConfig, ResNetForImageClassification

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ResNetForImageClassification(
            ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
        )
    classifier = ImageClassifier.of_module(network, 3, SQUARE)
    for encoder in (classifier, Surrogate.of_module(small_network(), ["0", "2"], SQUARE)):
        made = PRM(steps=3).perturb(encoder, images(), rng=stream(0, "attack"))
        assert sum(made.after) < sum(made.before)
    assert len(surrogate_of(classifier).features(images()).layers) == 3


def test_what_cannot_be_hooked_is_refused_with_advice():
    network = small_network()
    with pytest.raises(UnsupportedModelError, match="has no layer 'stem'; expected some of: 0, 1, 2"):
        Surrogate.of_module(network, ["stem"], SQUARE)
    with pytest.raises(UnsupportedModelError, match=r"cannot be hooked; expected a CLIP, SigLIP or VisionText"):
        Surrogate.of_module(network, ["5"], SQUARE)
    with pytest.raises(UnsupportedModelError, match="cannot hook ImageClassifier"):
        surrogate_of(ImageClassifier.of_module(network, 5, SQUARE))
    with pytest.raises(UnsupportedModelError, match="needs an encoder"):
        surrogates_of([])


def test_hooks_are_gone_afterwards():
    network = small_network()
    Surrogate.of_module(network, ["0", "2"], SQUARE).features(images())
    assert not any(module._forward_hooks for module in network.modules())
