"""Images as files: 8-bit PNG, which loses nothing but what lies between two of 256 levels."""

from __future__ import annotations

import io

import torch
from PIL import Image


def png(image: torch.Tensor) -> bytes:
    """An image (3, height, width) in [0, 1], or (4, height, width) with its opacity, as a PNG of 8 bits a channel."""
    values = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(values).save(file, format="PNG")
    return file.getvalue()
