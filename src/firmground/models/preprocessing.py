"""What a model's own image processor does, on tensors and differentiable: resize, crop, normalise.

Every number comes from the model's `preprocessor_config.json`. Resizing is bicubic or bilinear with antialiasing, as
Pillow's, from which it differs by the rounding to 8 bits that Pillow does after each of its two passes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from firmground.errors import BrokenModelError, DataError
from firmground.models.inspecting import inside, read_object

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.types import Images

CONFIG = "preprocessor_config.json"
NESTED_CONFIG = "processor_config.json"  # where transformers 5 puts it beside a tokenizer
FILTERS = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
SLACK = 1e-3  # rounding of an optimiser or of bfloat16 is no mistake
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resizes to `resize` pixels (the shorter side, or (height, width)), cuts out the central `size`, and normalises.

    A pixel x in [0, 1] becomes (scale * x - mean) / std, channel by channel; `filter` is torch's name.
    """

    size: int
    resize: int | tuple[int, int]
    filter: str = "bicubic"
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    scale: float = 1.0

    def __call__(self, images: Images) -> torch.Tensor:
        """Pixel values as the model reads them, (batch, 3, size, size), from images of any size."""
        check_images(images)
        small = self._cropped(self._resized(images if images.is_floating_point() else images.float()))
        mean, std = (
            torch.tensor(v, device=images.device, dtype=small.dtype).view(3, 1, 1) for v in (self.mean, self.std)
        )
        return (small * self.scale - mean) / std

    def _resized(self, images: Images) -> Images:
        height, width = images.shape[-2:]
        if isinstance(self.resize, tuple):
            wanted = self.resize
        else:
            short, long = min(height, width), max(height, width)
            stretched = int(self.resize * long / short)
            wanted = (self.resize, stretched) if height <= width else (stretched, self.resize)
        smooth = self.filter != "nearest-exact"
        for size in ((height, wanted[1]), wanted):  # Pillow's two passes: bicubic overshoots, and its 8 bits cannot
            if size != images.shape[-2:]:
                images = torch.nn.functional.interpolate(
                    images, size=size, mode=self.filter, antialias=smooth, align_corners=False if smooth else None
                ).clamp(0.0, 1.0)
        return images

    def _cropped(self, images: Images) -> Images:
        height, width = images.shape[-2:]
        top, left = (height - self.size) // 2, (width - self.size) // 2
        return images[..., top : top + self.size, left : left + self.size]

    def to_json(self) -> str:
        """The same as a `preprocessor_config.json`, which transformers reads as a `CLIPImageProcessor`."""
        resize = self.resize
        square = {"height": self.size, "width": self.size}
        settings = {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": resize[0], "width": resize[1]}
            if isinstance(resize, tuple)
            else {"shortest_edge": resize},
            "resample": next(number for number, name in FILTERS.items() if name == self.filter),
            "do_center_crop": True,
            "crop_size": square,
            "do_rescale": True,
            "rescale_factor": self.scale / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        return json.dumps(settings, indent=2, sort_keys=True) + "\n"


def read_preprocessing(folder: Path) -> Preprocessing:
    """Reads the image processor's config of a model's folder. Raises `BrokenModelError` where it is no use."""
    if inside(folder, CONFIG).is_file():
        settings = read_object(folder, CONFIG)
    elif inside(folder, NESTED_CONFIG).is_file():
        settings = read_object(folder, NESTED_CONFIG).get("image_processor", {})
    else:
        raise BrokenModelError(
            f"{folder} has no {CONFIG}, so that nothing says how its images are resized and normalised; copy the file "
            f"from the model's publisher"
        )
    try:
        return parse_preprocessing(settings)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BrokenModelError(
            f"the image processor's config in {folder} cannot be used ({type(error).__name__}: {error}); expected "
            f"size, image_mean and image_std as transformers writes them"
        ) from error


def parse_preprocessing(settings: dict[str, Any]) -> Preprocessing:
    """The settings of a CLIP, SigLIP, ViT or ConvNeXt image processor; ValueError where they do not fit together."""
    resize, cut = find_resize(settings), settings.get("crop_size", 224)
    if "crop_pct" in settings and isinstance(resize, int):  # ConvNeXt's way: a margin is cut off, from 384 px on none
        size = resize
        resize = int(size / settings["crop_pct"]) if size < 384 else (size, size)
    elif settings.get("do_center_crop", is_clip(settings)):
        height, width = (cut["height"], cut["width"]) if isinstance(cut, dict) else (cut, cut)
        size = square(height, width)
    else:
        size = square(*(resize if isinstance(resize, tuple) else (-1, -2)))
    if not 0 < size <= (min(resize) if isinstance(resize, tuple) else resize) <= 4096:
        raise ValueError(f"cannot cut {size} pixels out of {resize}")
    normal = settings.get("do_normalize", True)
    mean = tuple(float(v) for v in settings["image_mean"]) if normal else (0.0,) * 3
    std = tuple(float(v) for v in settings["image_std"]) if normal else (1.0,) * 3
    if len(mean) != 3 or len(std) != 3 or not all(v > 0 for v in std):
        raise ValueError(f"image_mean {mean} and image_std {std} are not three numbers each, the second positive")
    scale = 255 * float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 255.0
    return Preprocessing(
        size=size, resize=resize, filter=FILTERS[settings.get("resample", 3)], mean=mean, std=std, scale=scale
    )


def find_resize(settings: dict[str, Any]) -> int | tuple[int, int]:
    """The shorter side, or (height, width), in pixels."""
    size = settings["size"]
    if isinstance(size, dict):
        found = size["shortest_edge"] if "shortest_edge" in size else (size["height"], size["width"])
    else:
        found = size if is_clip(settings) else (size, size)
    if any(not isinstance(side, int) for side in (found if isinstance(found, tuple) else (found,))):
        raise ValueError(f"size {size!r} is not in whole pixels")
    return found


def is_clip(settings: dict[str, Any]) -> bool:
    """Whether an old config, which names few of its settings, means those of CLIP."""
    kind = settings.get("image_processor_type", settings.get("feature_extractor_type", "CLIP"))
    return str(kind).startswith("CLIP")


def square(height: int, width: int) -> int:
    """The side of a square; ValueError for anything else."""
    if height != width:
        raise ValueError("the model's images are not square, and nothing cuts them to a square")
    return height


def check_images(images: Images) -> None:
    """Refuses what is not a batch of RGB images in [0, 1], with advice."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise DataError(f"images must have the shape (batch, 3, height, width), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise DataError(f"images must be floats in [0, 1], got {images.dtype}; divide 8-bit images by 255")
    low, high = (float(v) for v in images.detach().aminmax())
    if not (low >= -SLACK and high <= 1 + SLACK):
        raise DataError(
            f"images must lie in [0, 1], got [{low:.2f}, {high:.2f}]; pass raw pixels: the encoder normalises them "
            f"itself"
        )
