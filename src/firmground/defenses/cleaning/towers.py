"""One tower of a dual encoder as a module of its own: it is trained, and all else of the model rests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch

from firmground.models.contrastive import Towers
from firmground.models.dual import IMAGE_PARTS, unit
from firmground.models.language import Tokens

if TYPE_CHECKING:
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images

SHARED = "logit_"  # how the scale of similarities, and what is added to them, begin


class ImageTower(torch.nn.Module):
    """The image tower as one module."""

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.towers = Towers(encoder)
        for name, value in encoder.model.named_parameters():
            value.requires_grad_(name.startswith(IMAGE_PARTS))

    def forward(self, images: Images) -> Embeddings:
        """Unit embeddings, (batch, width), float32."""
        encoder = self.towers.encoder
        with torch.autocast(encoder.device.type, torch.bfloat16, enabled=self.towers.fast):
            seen = encoder.embed_images(images.to(encoder.device))
        return unit(seen.float())


class TextTower(torch.nn.Module):
    """The text tower as one module. Both towers stay as they are in use: no dropout, and norms that do not learn."""

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.towers = Towers(encoder)
        for name, value in encoder.model.named_parameters():
            value.requires_grad_(not name.startswith((*IMAGE_PARTS, SHARED)))

    def train(self, mode: bool = True) -> Self:
        """Leaves everything as it is in use, whatever the mode."""
        return super().train(False)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Embeddings:
        """Unit embeddings, (batch, width), float32."""
        return unit(self.towers.encoder.embed_ids(Tokens(ids=ids, mask=mask)).float())
