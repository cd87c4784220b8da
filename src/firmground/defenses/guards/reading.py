"""Reads what a pipeline's own forward pass shows: no second pass, and the pipeline stays as it is."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from firmground.errors import AdapterError
from firmground.prompts.heads import Task

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One batch of a forward pass: `ids` and `states` as the task's head reads them.

    `ids` is (batch, length). `states` is (batch, positions, width) in float32 and `real` (batch, positions) says which
    positions count: one position for texts, every token that is no special one for words.
    """

    ids: torch.Tensor
    states: torch.Tensor
    real: torch.Tensor


class See(Protocol):
    """Is shown every batch that passes through a watched pipeline."""

    def __call__(self, seen: Seen) -> None:
        """Takes one batch."""


def task_of(pipeline: Any) -> Task:
    """The task of a Hugging Face pipeline. Raises `AdapterError` for tasks that no guard reads."""
    try:
        return Task(pipeline.task)
    except ValueError:
        raise AdapterError(
            f"a guard wraps a pipeline for {' or '.join(task.value for task in Task)}, not for {pipeline.task}"
        ) from None


def encoder_of(model: Any) -> Any:
    """The bare encoder inside a classifier, with or without a PEFT prompt on it."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.base_model


@contextmanager
def watching(pipeline: Any, see: See) -> Iterator[None]:
    """While it is open, `see` gets every batch that this thread runs through the pipeline, in order."""
    task, owner = task_of(pipeline), threading.get_ident()
    special = torch.tensor(sorted(pipeline.tokenizer.all_special_ids), device=pipeline.model.device)
    pooled = getattr(encoder_of(pipeline.model).config, "classifier_pooling", None) == "mean"
    held: list[torch.Tensor] = []

    def hold(_: Any, args: Any, output: Any) -> None:
        if threading.get_ident() == owner:
            held[:] = [output[0]]

    def show(_: Any, args: Any, kwargs: Any, output: Any) -> None:
        if threading.get_ident() == owner and held:
            ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
            with torch.inference_mode():
                see(read(held.pop(), ids, mask, special, task=task, pooled=pooled))

    handles = [
        encoder_of(pipeline.model).register_forward_hook(hold),
        pipeline.model.register_forward_hook(show, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def read(
    hidden: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, special: torch.Tensor, *, task: Task, pooled: bool
) -> Seen:
    """Cuts hidden states, (batch, virtual + length, width), to what the head reads."""
    if task is Task.WORDS:
        real = mask.bool() & ~torch.isin(ids, special)
        return Seen(ids=ids, states=hidden[:, -ids.shape[1] :].float(), real=real)
    if pooled:
        whole = torch.cat([mask.new_ones(len(mask), hidden.shape[1] - mask.shape[1]), mask], dim=1)[..., None]
        states = ((hidden.float() * whole).sum(1) / whole.sum(1))[:, None]
    else:
        states = hidden[:, :1].float()
    return Seen(ids=ids, states=states, real=torch.ones_like(ids[:, :1], dtype=torch.bool))
