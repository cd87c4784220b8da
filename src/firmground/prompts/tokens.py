"""Prompts in the space of tokens: vectors that a vision transformer reads beside those of the image's patches.

Jia et al., "Visual Prompt Tuning", ECCV 2022 (arXiv 2203.12119): shallow ones enter the first layer, deep ones are put
anew into every layer. Departs from the paper: they stand behind the patches (see `models/token_prompts.py`).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from firmground.models.token_prompts import FAMILIES, check_tokens, layers_of, reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

    from firmground.models.classifiers import ImageClassifier

__all__ = ["FAMILIES", "blocks_of", "inserted", "width_of"]


def blocks_of(base: ImageClassifier) -> nn.ModuleList:
    """The layers of a vision transformer, first to last. Raises `UnsupportedModelError` where the base has none."""
    return layers_of(_tower(base), base.source, "take another form, such as padding")


def width_of(base: ImageClassifier) -> int:
    """The width of its tokens."""
    blocks_of(base)
    return int(_tower(base).config.hidden_size)


@contextmanager
def inserted(base: ImageClassifier, tokens: torch.Tensor) -> Iterator[None]:
    """While it lasts the base reads `tokens`, (layers, count, width), in its first layers; gradients reach them.

    Raises as `check_tokens`.
    """
    layers = check_tokens(_tower(base), tokens, base.source)
    with reading(layers, tokens):
        yield


def _tower(base: ImageClassifier) -> Any:
    return base.weights if base.encoder is None else base.encoder.model.vision_model
