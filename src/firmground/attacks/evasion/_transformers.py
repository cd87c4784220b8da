"""Changing gradients inside of a vision transformer's blocks."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from firmground.errors import UnsupportedModelError
from firmground.models.surrogates import replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from firmground.models.surrogates import Surrogate

QUERIES_AND_KEYS = ("q_proj", "k_proj", "query", "key")
VALUES = ("v_proj", "value")
MLP = ("mlp",)


def modules_named(surrogate: Surrogate, names: Sequence[str], method: str) -> list[torch.nn.Module]:
    """The modules of those names in all blocks. Raises `UnsupportedModelError` for a tower that has none."""
    found = [
        module
        for block in surrogate.blocks
        for name, module in block.named_modules()
        if name.rpartition(".")[2] in names
    ]
    if surrogate.convolutional or not found:
        raise UnsupportedModelError(
            f"{method} works on the attention of a vision transformer, and {surrogate.source} has none; use another "
            f"method, such as prm or di"
        )
    return found


@contextmanager
def outputs_changed(
    modules: Sequence[torch.nn.Module], change: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """While the block runs, every module's output is what `change` makes of it."""
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(replaced(module, change))
        yield


def with_gradient(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Leaves an output as it is, and lets `change` change the gradient that comes back through it."""

    def passed(output: torch.Tensor) -> torch.Tensor:
        changed: Any = Regulated.apply(output, change)
        return changed  # type: ignore[no-any-return]

    return passed


class Regulated(torch.autograd.Function):
    """The identity, with a changed gradient."""

    @staticmethod
    def forward(context: Any, output: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Keeps what changes the gradient."""
        context.change = change
        return output.view_as(output)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Changes it."""
        return context.change(gradients[0]), None
