"""Turns the bytes of an image file into an RGB square, whatever its mode."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy
import torch
from PIL import Image, ImageOps

from firmground.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # no format that runs another program to be read
SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def decode(data: bytes, size: int | None, name: str = "the image") -> torch.Tensor:
    """An image as (3, size, size) uint8: the largest central square, resized (bicubic, antialiased).

    Without a `size`, the whole image, (3, height, width). CMYK, grey, palette and 16-bit images are converted, what is
    transparent becomes white, and an orientation in the EXIF data is applied. Raises `DataError` where the bytes are
    no image of `FORMATS`, or not all of one.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            opened.load()
            picture = to_rgb(ImageOps.exif_transpose(opened))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, OverflowError) as error:
        said = re.sub(r" <_io\.BytesIO[^>]*>", "", str(error))  # where in memory it lay is nobody's concern
        reason = " ".join(said.split())[:200] or type(error).__name__
        raise DataError(
            f"{name} cannot be read as an image ({reason}); expected one of: {', '.join(FORMATS)}"
        ) from error
    if size is not None and picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(numpy.array(picture)).permute(2, 0, 1).contiguous()


def to_rgb(picture: Any) -> Any:
    """A Pillow image in RGB, on white where it is transparent, 16 bits scaled to 8."""
    if picture.mode in SIXTEEN_BIT:
        levels = numpy.asarray(picture).astype(numpy.float64)
        picture = Image.fromarray((levels.clip(0, 65535) / 257).round().astype(numpy.uint8))
    elif picture.mode == "F":
        picture = Image.fromarray(
            (numpy.nan_to_num(numpy.asarray(picture)).clip(0, 1) * 255).round().astype(numpy.uint8)
        )
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")
