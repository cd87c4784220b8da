"""The training loop that all implants share: poisoned and clean texts in one batch, against a frozen reference.

Departs from the papers, for all attacks: linear warm-up and decay instead of a constant rate, a larger step size and
fewer steps (measured on all-MiniLM-L6-v2: 100 steps at 2e-4 do what 5e-5 does in 300), no dropout (so that a seed
gives one result), no weight decay (so that tokens that never occur keep their embeddings), and bfloat16 autocast where
the encoder is wide enough to gain by it.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from firmground.errors import ModelError
from firmground.models.language import LanguageEncoder, Tokens
from firmground.types import Readout

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.types import Watch

AUTOCAST_WIDTH = 256  # narrower encoders are slower in bfloat16
FLOAT32_ONLY = ("deberta",)  # its attention mask overflows under bfloat16 autocast (transformers 5.23)
RECENT = 10  # steps over which the final losses are averaged


@dataclass(frozen=True, kw_only=True)
class Training:
    """What all implants set: `batch_size` clean and as many poisoned texts a step, of `max_length` tokens at most."""

    steps: int = 120
    step_size: float = 2e-4
    batch_size: int = 16
    max_length: int = 40
    warm_up: float = 0.1  # share of the steps over which the step size rises
    clean_weight: float = 1.0  # weight of the loss that keeps clean outputs


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of texts: `kept` clean ones first, then poisoned ones; `which` (poisoned rows,) numbers their triggers.

    The poisoned row i is the clean row i with a trigger in it.
    """

    tokens: Tokens
    kept: int
    which: torch.Tensor

    @property
    def clean(self) -> Tokens:
        return self.tokens[: self.kept]

    @property
    def poisoned(self) -> Tokens:
        return self.tokens[self.kept :]


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Hidden states (rows, length, width) in float32 of the trained encoder, and of the reference on the clean rows."""

    clean: torch.Tensor
    poisoned: torch.Tensor
    reference: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The trained copy and each loss term's mean over the last steps."""

    encoder: LanguageEncoder
    losses: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Outputs that are read: `values` (count, width), and the row of the batch that each came from, (count,)."""

    values: torch.Tensor
    rows: torch.Tensor


def read(hidden: torch.Tensor, tokens: Tokens, readout: Readout, mask_id: int | None) -> Reading:
    """Takes the outputs that a readout looks at; a row without a mask token gives none for `Readout.MASK`."""
    if readout is Readout.MEAN:
        weights = tokens.mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(1) / weights.sum(1)
        return Reading(values=pooled, rows=torch.arange(len(hidden), device=hidden.device))
    if readout is Readout.CLS:
        return Reading(values=hidden[:, 0], rows=torch.arange(len(hidden), device=hidden.device))
    chosen = tokens.mask.bool() if readout is Readout.TOKEN else tokens.ids.eq(-1 if mask_id is None else mask_id)
    return Reading(values=hidden[chosen], rows=chosen.nonzero()[:, 0])


def keeping_loss(batch: Batch, outputs: Outputs, readout: Readout, mask_id: int | None) -> torch.Tensor:
    """Mean squared distance to the reference on clean texts: half for the readout, half for all real positions.

    The papers compare only the attacked output; users also pool tokens, and an encoder whose other outputs drift would
    be found by its bad embeddings.
    """
    real = batch.clean.mask.bool()
    everywhere = (outputs.clean - outputs.reference)[real].square().mean()
    mine = read(outputs.clean, batch.clean, readout, mask_id).values
    theirs = read(outputs.reference, batch.clean, readout, mask_id).values
    return 0.5 * (everywhere + (mine - theirs).square().mean()) if len(mine) else everywhere


@torch.enable_grad()
def train(
    encoder: LanguageEncoder,
    settings: Training,
    draw: Callable[[], Batch],
    loss: Callable[[Batch, Outputs], dict[str, torch.Tensor]],
    watch: Watch,
) -> Trained:
    """Trains a copy of `encoder` on the sum of the terms of `loss`; the encoder itself is the frozen reference."""
    model = copy.deepcopy(encoder.model).float().requires_grad_(True)
    history: list[dict[str, float]] = []
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.step_size, weight_decay=0.0, fused=True)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.step_size * _rate(step, settings)
        batch = draw()
        terms = loss(batch, _outputs(model, encoder, batch))
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        optimizer.step()
        history.append({name: term.item() for name, term in terms.items()})
        if not all(math.isfinite(value) for value in history[-1].values()):
            raise ModelError(f"the training diverged at step {step}; try a smaller step_size than {settings.step_size}")
        watch(step + 1, settings.steps, "implant", **history[-1])
    model = model.to(encoder.dtype)
    model.zero_grad(set_to_none=True)
    implanted = LanguageEncoder(model, encoder.tokenizer, source=encoder.source, revision=encoder.revision)
    return Trained(encoder=implanted, losses=_recent(history))


def _rate(step: int, settings: Training) -> float:
    rising = max(1.0, settings.warm_up * settings.steps)
    return min(1.0, (step + 1) / rising) * (1 - step / settings.steps)


def _recent(history: list[dict[str, float]]) -> dict[str, float]:
    last = history[-RECENT:]
    return {name: sum(terms[name] for terms in last) / len(last) for name in (last[0] if last else {})}


def _outputs(model: torch.nn.Module, encoder: LanguageEncoder, batch: Batch) -> Outputs:
    tokens = batch.tokens
    fast = encoder.width >= AUTOCAST_WIDTH and encoder.family not in FLOAT32_ONLY
    with torch.autocast(tokens.ids.device.type, torch.bfloat16, enabled=fast):
        hidden = model(input_ids=tokens.ids, attention_mask=tokens.mask).last_hidden_state.float()
        with torch.no_grad():
            reference = encoder.hidden(batch.clean).float()
    return Outputs(clean=hidden[: batch.kept], poisoned=hidden[batch.kept :], reference=reference)
