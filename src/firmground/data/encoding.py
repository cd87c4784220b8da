"""Images as pictures of 8 bits and as files: PNG, which loses nothing more, and JPEG, which does."""

from __future__ import annotations

import io

import numpy
import torch
from PIL import Image


def picture(image: torch.Tensor) -> Image.Image:
    """An image (3, height, width) in [0, 1], or (4, height, width) with its opacity, at the nearest of 256 levels."""
    values = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    return Image.fromarray(values)


def png(image: torch.Tensor) -> bytes:
    """The same as a PNG file of 8 bits a channel."""
    file = io.BytesIO()
    picture(image).save(file, format="PNG")
    return file.getvalue()


def jpeg(image: torch.Tensor, quality: int) -> bytes:
    """An image (3, height, width) as a JPEG file of that quality, 1 to 95."""
    file = io.BytesIO()
    picture(image).save(file, format="JPEG", quality=quality)
    return file.getvalue()


def through_jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    """An image, (3, height, width) in [0, 1], as it comes back from a JPEG file: on the CPU, without a gradient."""
    with Image.open(io.BytesIO(jpeg(image, quality))) as again:
        return torch.from_numpy(numpy.array(again)).permute(2, 0, 1).float() / 255
