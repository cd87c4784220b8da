"""Images as a prompt seats them, resized once and not anew in every step of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from firmground.prompts.visual import VisualPrompt

if TYPE_CHECKING:
    from firmground.data.labelled_images import LabelledImages
    from firmground.prompts.visual import PromptShape

MOST = 1 << 30  # bytes of seated images that are kept
AT_ONCE = 256


def seated(data: LabelledImages, shape: PromptShape) -> LabelledImages:
    """The same images of `shape.inner` pixels a side, float32; as they are where these would take more than `MOST`.

    A prompt of that shape seats what this gives as it would have seated the images, bit for bit.
    """
    if len(data) * 3 * shape.inner**2 * 4 > MOST:
        return data
    prompt = VisualPrompt(shape=shape, pixels=torch.zeros(shape.tensor_shape))
    parts = [prompt.seat(data.batch(start, AT_ONCE)) for start in range(0, len(data), AT_ONCE)]
    return replace(data, images=torch.cat(parts)) if parts else data
