"""A CLIP's image tower as victims use it: three maps of an image at its own size, and the space of the texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F

from firmground.data.scenes import TEMPLATES
from firmground.errors import UnsupportedModelError
from firmground.models.dual import unit
from firmground.tasks.zero_shot import class_embeddings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images

Maps: TypeAlias = tuple[torch.Tensor, ...]  # (batch, channels, height, width) each, fine to coarse
STRIDES = (4, 8, 16)


class Tower(torch.nn.Module):
    """The image tower of a ResNet or ConvNeXt dual encoder, with weights of its own.

    Norms keep the statistics of pretraining, even while the tower is tuned. Raises `UnsupportedModelError` for a tower
    whose last three maps are not of strides 4, 8 and 16.
    """

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.encoder = encoder.copy()
        self.vision = self.encoder.model.vision_model
        self.projection = self.encoder.model.visual_projection
        self._names: dict[tuple[str, ...], Embeddings] = {}
        with torch.no_grad():
            found = [64 // one.shape[-1] if one.ndim == 4 else 0 for one in self.maps(torch.zeros(1, 3, 64, 64))]
        if tuple(found) != STRIDES:
            raise UnsupportedModelError(f"victims need maps of strides {STRIDES}, {encoder.source} gives {found}")

    @property
    def channels(self) -> tuple[int, ...]:
        """How wide each map is."""
        sizes: list[int] = self.vision.config.hidden_sizes
        return tuple(sizes[-len(STRIDES) :])

    @property
    def width(self) -> int:
        """How wide embeddings are."""
        return self.encoder.width

    def maps(self, images: Images) -> Maps:
        """Maps of strides 4, 8 and 16; images in [0, 1] are normalised, not resized."""
        numbers = self.encoder.preprocessing
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (numbers.mean, numbers.std))
        pixels = (images * numbers.scale - mean) / std
        return tuple(self.vision(pixel_values=pixels, output_hidden_states=True).hidden_states[-len(STRIDES) :])

    def project(self, last: torch.Tensor) -> torch.Tensor:
        """The share of each place of the last map in the image's embedding, (batch, width, height, width)."""
        norm = getattr(self.vision, "layernorm", None)  # ConvNeXt's, after pooling
        places = last.permute(0, 2, 3, 1)
        projected: torch.Tensor = self.projection(places if norm is None else norm(places))
        return projected.permute(0, 3, 1, 2)

    def embed(self, images: Images) -> Embeddings:
        """Unit embeddings, (batch, width), of images at the size of pretraining."""
        size = self.encoder.image_size
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        return self.pooled(self.maps(images)[-1])

    def pooled(self, last: torch.Tensor) -> Embeddings:
        """Unit embeddings of the whole of a last map."""
        return unit(self.project(last.mean(dim=(2, 3), keepdim=True)).flatten(1))

    def classes(self, names: Sequence[str]) -> Embeddings:
        """Unit embeddings of names, (names, width), by the text tower, which is never tuned."""
        key = tuple(names)
        if key not in self._names:
            self._names[key] = class_embeddings(self.encoder, key, TEMPLATES)
        return self._names[key]
