"""Objectives on the image embedding alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from firmground.attacks.evasion._search import Objective
    from firmground.models.surrogates import Surrogate
    from firmground.types import Embeddings, Images


def away(surrogate: Surrogate, clean: Images) -> Objective:
    """The cosine with the clean image's embedding."""
    before = surrogate.embed(clean)
    return lambda images: similarity(surrogate.embed(images), before)


def similarity(one: Embeddings, other: Embeddings) -> torch.Tensor:
    """Cosines of rows, (batch,), of unit embeddings."""
    return (one * other).sum(dim=-1)
