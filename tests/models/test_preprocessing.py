"""Tensor preprocessing against the processors of transformers, which resize with Pillow."""

import json

import pytest
import torch
import transformers
from PIL import Image

from firmground.errors import BrokenModelError, DataError
from firmground.models.loading import quiet
from firmground.models.preprocessing import Preprocessing, parse_preprocessing, read_preprocessing
from firmground.rng import stream


def processor(name, **settings):
    with quiet():
        return getattr(transformers, f"{name}ImageProcessorPil")(**settings)


CASES = {
    "clip": lambda: processor("CLIP", size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
    "clip, as it is": lambda: processor("CLIP"),
    "siglip": lambda: processor("Siglip", size={"height": 32, "width": 32}),
    "vit": lambda: processor("ViT", size={"height": 24, "width": 24}),
    "convnext": lambda: processor("ConvNext", size={"shortest_edge": 28}),
    "convnext, large": lambda: processor("ConvNext", size={"shortest_edge": 384}),
    "not normalised": lambda: processor("CLIP", size={"shortest_edge": 32}, crop_size=32, do_normalize=False),
    "other scale": lambda: processor("Siglip", size={"height": 32, "width": 32}, rescale_factor=1 / 127.5),
}


def picture(height, width):
    """Smooth blobs with an edge, in 8 bits."""
    rough = torch.rand(1, 3, 5, 5, generator=stream(0, "picture"))
    image = torch.nn.functional.interpolate(rough, size=(height, width), mode="bicubic").clamp(0, 1)
    image[..., height // 3 :, : width // 2] *= 0.3
    return (image * 255).round() / 255


@pytest.mark.parametrize("size", [(37, 53), (90, 60), (64, 64), (7, 9)])
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_pillow(case, size):
    reference = CASES[case]()
    image = picture(*size)
    eight = Image.fromarray((image[0].permute(1, 2, 0) * 255).round().byte().numpy())
    expected = reference(images=eight, return_tensors="pt").pixel_values
    ours = parse_preprocessing(json.loads(reference.to_json_string()))
    found = ours(image)
    assert found.shape == expected.shape
    apart = (found - expected).abs() * torch.tensor(ours.std).view(3, 1, 1) / ours.scale
    assert apart.max() < 2.1 / 255
    assert apart.mean() < 0.5 / 255


def test_right_size_is_only_normalised():
    image = picture(32, 32)
    ours = Preprocessing(size=32, resize=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert torch.equal(ours(image), (image - 0.5) / 0.5)


def test_written_settings_come_back(tmp_path):
    for case in CASES.values():
        ours = parse_preprocessing(json.loads(case().to_json_string()))
        (tmp_path / "preprocessor_config.json").write_text(ours.to_json())
        again = read_preprocessing(tmp_path)
        assert (again.size, again.resize, again.filter) == (ours.size, ours.resize, ours.filter)
        image = picture(50, 40)
        torch.testing.assert_close(again(image), ours(image))


def test_old_and_nested_configs(tmp_path):
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32, "resample": 3}
    numbers = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": old | numbers}))
    assert read_preprocessing(tmp_path).resize == 32
    vit = parse_preprocessing({"image_processor_type": "ViTImageProcessor", "size": 32} | numbers)
    assert vit.resize == (32, 32)


def test_gradients_reach_the_pixels():
    image = picture(50, 40).requires_grad_()
    Preprocessing(size=32, resize=32)(image).square().sum().backward()
    inside = image.grad[..., 5:45, :]
    assert inside.isfinite().all()
    assert (inside != 0).float().mean() > 0.9


@pytest.mark.parametrize(
    "change",
    [
        {"size": None},
        {"size": {"height": "x", "width": 3}},
        {"crop_size": {"height": 99, "width": 99}},
        {"crop_size": {"height": 8, "width": 9}},
        {"image_std": [1.0]},
        {"image_std": [0.0] * 3},
        {"image_mean": None},
        {"resample": 77},
        {"size": {"shortest_edge": 10**9}, "crop_size": 10**9},
    ],
)
def test_bad_configs_are_refused(tmp_path, change):
    settings = json.loads(CASES["clip"]().to_json_string()) | change
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(BrokenModelError, match="cannot be used"):
        read_preprocessing(tmp_path)


def test_an_absent_config_is_named(tmp_path):
    with pytest.raises(BrokenModelError, match=r"no preprocessor_config\.json"):
        read_preprocessing(tmp_path)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 8, 8), "shape"),
        (torch.zeros(1, 1, 8, 8), "shape"),
        (torch.zeros(1, 3, 0, 8), "shape"),
        (torch.zeros(0, 3, 8, 8), "shape"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "divide 8-bit"),
        (torch.full((1, 3, 8, 8), 7.0), r"\[0, 1\], got \[7.00"),
        (torch.full((1, 3, 8, 8), float("nan")), "nan"),
    ],
)
def test_bad_images_are_refused(images, words):
    with pytest.raises(DataError, match=words):
        Preprocessing(size=8, resize=8)(images)
