"""Objectives on the image embedding alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmground.errors import DataError
from firmground.models.preprocessing import check_images

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from firmground.attacks.evasion._search import Begin, Objective
    from firmground.models.surrogates import Surrogate
    from firmground.types import Embeddings, Images


def away(surrogate: Surrogate, clean: Images, target: Images) -> Objective:
    """The cosine with the clean image's embedding."""
    before = surrogate.embed(clean)
    return lambda images: similarity(surrogate.embed(images), before)


def away_through(change: Callable[[Images], Images]) -> Begin:
    """The same of images that are changed before they are looked at."""

    def begin(surrogate: Surrogate, clean: Images, target: Images) -> Objective:
        before = surrogate.embed(clean)
        return lambda images: similarity(surrogate.embed(change(images)), before)

    return begin


def similarity(one: Embeddings, other: Embeddings) -> torch.Tensor:
    """Cosines of rows, (batch,), of unit embeddings."""
    return (one * other).sum(dim=-1)


def targets_for(images: Images, target: Images | None) -> Images:
    """A target for every image: the given ones in turn, or without any the next image of the set.

    Raises `DataError` where there is none, or it is no batch of images.
    """
    if target is None:
        if len(images) < 2:
            raise DataError("one image alone has no other to resemble; give a target image or text")
        return images.roll(-1, dims=0)
    check_images(target)
    return target[[i % len(target) for i in range(len(images))]]
