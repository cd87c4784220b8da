"""Vectors that the layers of a vision transformer read beside an image's own tokens: put in for a while, or to stay.

Jia et al., "Visual Prompt Tuning", ECCV 2022 (arXiv 2203.12119), there called deep prompts. They stand behind the
image's tokens, which a transformer without positions in its layers cannot tell from elsewhere, and what leaves the last
layer is without them. Those that stay are buffers of the layers: a copy has its own, and the hash of a model tells one
with prompts from one without.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from firmground.errors import DataError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch.utils.hooks import RemovableHandle

FAMILIES = ("vit", "deit", "dinov2", "clip_vision_model", "siglip_vision_model")
BUFFER = "prompt_tokens"


def layers_of(tower: Any, source: str, instead: str = "take another model") -> nn.ModuleList:
    """The layers of a vision transformer, first to last.

    Raises `UnsupportedModelError` for any other tower; `instead` is what it then advises.
    """
    config = getattr(tower, "config", None)
    if config is not None and config.model_type in FAMILIES:
        for part in tower.modules():
            if isinstance(part, nn.ModuleList) and len(part) == config.num_hidden_layers:
                return part
    raise UnsupportedModelError(
        f"token prompts are for vision transformers ({', '.join(FAMILIES)}), and {source} is none; {instead}"
    )


def put(
    layers: nn.ModuleList, depth: int, count: int, read: Callable[[nn.Module, int], torch.Tensor]
) -> list[RemovableHandle]:
    """Lets the first `depth` layers read `count` vectors each: `read(layer, number)`, (count, width).

    The vectors of a layer take the place of what became of those before; gradients reach them. Returns what takes the
    hooks out again.
    """

    def enter(number: int) -> Any:
        def hook(layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden, *rest = given
            own = read(layer, number).to(hidden).expand(len(hidden), -1, -1)
            return (torch.cat([hidden[:, :-count] if number else hidden, own], dim=1), *rest)

        return hook

    def leave(_: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
        return (output[0][:, :-count], *output[1:]) if isinstance(output, tuple) else output[:, :-count]

    hooks = [layers[number].register_forward_pre_hook(enter(number)) for number in range(depth)]
    return [*hooks, layers[-1].register_forward_hook(leave, prepend=True)]


@contextmanager
def reading(layers: nn.ModuleList, tokens: torch.Tensor) -> Iterator[None]:
    """While it lasts the first layers read `tokens`, (layers, count, width); gradients reach them."""
    hooks = put(layers, len(tokens), tokens.shape[1], lambda _, number: tokens[number])
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_tokens(tower: Any, tokens: torch.Tensor, source: str) -> nn.ModuleList:
    """The tower's layers, where these tokens, (layers, count, width), fit them and none are there yet.

    Raises `DataError` for tokens of another width or for more layers than there are, `UnsupportedModelError` for a
    tower that is no vision transformer or has prompts that stay.
    """
    layers = layers_of(tower, source)
    if len(tokens) > len(layers) or tokens.shape[2] != tower.config.hidden_size:
        raise DataError(
            f"the prompt has tokens of {tokens.shape[2]} numbers for {len(tokens)} layers, and {source} has "
            f"{len(layers)} layers of {tower.config.hidden_size}"
        )
    if attached(tower) is not None:
        raise UnsupportedModelError(
            f"{source} reads token prompts already, which others would push out; take the encoder inside of its folder"
        )
    return layers


def attach(tower: Any, tokens: torch.Tensor, source: str) -> None:
    """Lets a tower read `tokens`, (layers, count, width), from now on. Raises as `check_tokens`."""
    layers = check_tokens(tower, tokens, source)
    weight = next(tower.parameters())
    for layer, rows in zip(layers, tokens.detach(), strict=False):
        layer.register_buffer(BUFFER, rows.to(weight, copy=True).contiguous())
    put(layers, len(tokens), tokens.shape[1], lambda layer, _: getattr(layer, BUFFER))


def attached(tower: nn.Module) -> torch.Tensor | None:
    """The prompts that a tower reads, (layers, count, width); None where there are none."""
    found = [value for name, value in tower.named_buffers() if name.rpartition(".")[2] == BUFFER]
    return torch.stack(found) if found else None


def image_tokens(tower: nn.Module, states: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """A tower's hidden states, without the prompts that it reads."""
    if attached(tower) is None:
        return tuple(states)
    return tuple(state[:, : states[-1].shape[1]] for state in states)
