"""Comparing the layers of clean and perturbed images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.surrogates import Surrogate
    from firmground.types import Images

Tokens: TypeAlias = Literal["all", "patches", "class"]


def layers_of(
    surrogate: Surrogate, images: Images, wanted: Sequence[int] | None, tokens: Tokens = "all"
) -> list[torch.Tensor]:
    """The layers of those numbers (all for None; negative ones count from the last), each (batch, places, width).

    `tokens` keeps the patches' or the class token's only. Raises `DataError` for a layer or a token that is not there.
    """
    layers = surrogate.features(images).layers
    numbers = range(len(layers)) if wanted is None else wanted
    wrong = [number for number in numbers if not -len(layers) <= number < len(layers)]
    if wrong or not numbers:
        raise DataError(
            f"there is no layer {wrong[0] if wrong else ''} in {surrogate.source}; it has {len(layers)}, the first of "
            f"which, 0, enters the first block"
        )
    chosen = [layers[number] for number in numbers]
    if tokens == "all":
        return chosen
    count = surrogate.class_tokens(images, chosen[0])
    if tokens == "class" and count == 0:
        raise DataError(f"{surrogate.source} has no class token; use tokens 'all' or 'patches'")
    return [layer[:, :count] if tokens == "class" else layer[:, count:] for layer in chosen]


def lengths(layer: torch.Tensor) -> torch.Tensor:
    """The length of every place's vector, (batch, places)."""
    size: torch.Tensor = torch.linalg.vector_norm(layer, dim=-1).clamp(min=torch.finfo(layer.dtype).tiny ** 0.5)
    return size


def cosines(layer: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    """The cosine at every place, (batch, places), with vectors that have length one."""
    return (layer * units).sum(dim=-1) / lengths(layer)


def units_of(layers: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The layers with every place's vector of length one."""
    return [layer / lengths(layer).unsqueeze(-1) for layer in layers]
