"""Prompts in the space of tokens: vectors that a vision transformer reads beside those of the image's patches.

Jia et al., "Visual Prompt Tuning", ECCV 2022 (arXiv 2203.12119): shallow ones enter the first layer, deep ones are put
anew into every layer. Departs from the paper: they stand behind the patches, not between them and the class token,
which a transformer without positions in its layers cannot tell; what leaves the last layer is without them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from firmground.errors import DataError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firmground.models.classifiers import ImageClassifier

FAMILIES = ("vit", "deit", "dinov2", "clip_vision_model", "siglip_vision_model")


def blocks_of(base: ImageClassifier) -> nn.ModuleList:
    """The layers of a vision transformer, first to last. Raises `UnsupportedModelError` where the base has none."""
    config = _config(base)
    if getattr(config, "model_type", None) in FAMILIES:
        for part in _tower(base).modules():
            if isinstance(part, nn.ModuleList) and len(part) == config.num_hidden_layers:
                return part
    raise UnsupportedModelError(
        f"token prompts are for vision transformers ({', '.join(FAMILIES)}), and {base.source} is none; take another "
        f"form, such as padding"
    )


def width_of(base: ImageClassifier) -> int:
    """The width of its tokens."""
    blocks_of(base)
    return int(_config(base).hidden_size)


@contextmanager
def inserted(base: ImageClassifier, tokens: torch.Tensor) -> Iterator[None]:
    """While it lasts the base reads `tokens`, (layers, count, width), in its first layers; gradients reach them.

    Raises `DataError` for tokens of another width or for more layers than there are.
    """
    blocks, count = blocks_of(base), tokens.shape[1]
    if len(tokens) > len(blocks) or tokens.shape[2] != width_of(base):
        raise DataError(
            f"the prompt has tokens of {tokens.shape[2]} numbers for {len(tokens)} layers, and {base.source} has "
            f"{len(blocks)} layers of {width_of(base)}"
        )

    def enter(number: int) -> Any:
        def put(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden, *rest = given
            own = tokens[number].to(hidden).expand(len(hidden), -1, -1)
            return (torch.cat([hidden[:, :-count] if number else hidden, own], dim=1), *rest)

        return put

    def leave(_: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
        return (output[0][:, :-count], *output[1:]) if isinstance(output, tuple) else output[:, :-count]

    hooks = [blocks[number].register_forward_pre_hook(enter(number)) for number in range(len(tokens))]
    hooks.append(blocks[-1].register_forward_hook(leave))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _tower(base: ImageClassifier) -> Any:
    return base.weights if base.encoder is None else base.encoder.model.vision_model


def _config(base: ImageClassifier) -> Any:
    return getattr(_tower(base), "config", None)
