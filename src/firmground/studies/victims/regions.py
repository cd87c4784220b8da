"""Regions of an image and their embeddings: connected parts of a mask, boxes, crops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from scipy.ndimage import binary_fill_holes, label

from firmground.models.dual import unit
from firmground.studies.victims.necks import at_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.studies.victims.towers import Tower
    from firmground.types import Embeddings, Images

MARGIN = 0.15  # of a box's longer side, that a crop shows around it
SMALLEST = 12  # pixels of a part


def parts(mask: torch.Tensor) -> list[torch.Tensor]:
    """The connected parts of a boolean mask, (height, width), as masks; specks are left out."""
    numbers, count = label(mask.numpy())
    found = [torch.from_numpy(numbers == number) for number in range(1, count + 1)]
    return [one for one in found if int(one.sum()) >= SMALLEST]


def filled(mask: torch.Tensor) -> torch.Tensor:
    """A boolean mask, (height, width), without holes."""
    return torch.from_numpy(binary_fill_holes(mask.numpy()))


def box_of(mask: torch.Tensor) -> tuple[int, int, int, int]:
    """The smallest box (x0, y0, x1, y1) around a mask."""
    down, across = (torch.nonzero(mask.any(dim=dim)).flatten() for dim in (1, 0))
    return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1


def pooled(embedding: torch.Tensor, masks: Sequence[torch.Tensor]) -> Embeddings:
    """Unit means of a map of embeddings, (width, side, side), over masks at the images' resolution."""
    shares = at_side(torch.stack(list(masks)).float()[:, None], embedding.shape[-1])[:, 0]
    return unit(torch.einsum("nij,dij->nd", shares, embedding))


def crops(tower: Tower, images: Images, boxes: torch.Tensor) -> Embeddings:
    """Unit embeddings of square crops, one of each image, at the size that the tower was trained on; boxes (n, 4)."""
    size = tower.encoder.image_size
    reach = max(images.shape[-2:])
    whole, cut = F.pad(images, (reach,) * 4, mode="replicate"), []
    for image, (x0, y0, x1, y1) in zip(whole, boxes.tolist(), strict=True):
        side = max(4, round((1 + 2 * MARGIN) * min(reach, max(x1 - x0, y1 - y0))))
        left, top = (round((low + high - side) / 2) + reach for low, high in ((x0, x1), (y0, y1)))
        piece = image[None, :, top : top + side, left : left + side]
        cut.append(F.interpolate(piece, size=(size, size), mode="bilinear", antialias=True, align_corners=False))
    return tower.embed(torch.cat(cut))
