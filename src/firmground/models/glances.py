"""What one pass through an image tower tells of images: where it embeds them, and what it holds on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from firmground.errors import DataError
from firmground.models.surrogates import projected
from firmground.models.token_prompts import image_tokens

if TYPE_CHECKING:
    import torch

    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images


@dataclass(frozen=True, kw_only=True, eq=False)
class Glance:
    """Unit `embeddings`, (batch, width), and the mean over the places of a hidden state, (batch, its width)."""

    embeddings: Embeddings
    state: torch.Tensor


def glance(encoder: DualEncoder, images: Images, layer: int) -> Glance:
    """One pass over images in [0, 1]; `layer` counts hidden states, 0 the first, -1 the last.

    Raises `DataError` where there is no such state.
    """
    tower = encoder.model.vision_model
    output = tower(pixel_values=encoder.prepare(images.to(encoder.device)), output_hidden_states=True)
    states = image_tokens(tower, output.hidden_states)
    if not -len(states) <= layer < len(states):
        raise DataError(f"there is no hidden state {layer}; this encoder has {len(states)}, counted from 0")
    state = states[layer].float()
    return Glance(
        embeddings=projected(encoder, output.pooler_output.flatten(1)).float(),
        state=state.mean(dim=(2, 3)) if state.ndim == 4 else state.mean(dim=1),
    )


def pooled(encoder: DualEncoder, images: Images, layer: int) -> torch.Tensor:
    """The mean over the places of a hidden state, (batch, its width). Raises `DataError` where there is no such."""
    return glance(encoder, images, layer).state
