"""The one training loop of all soft prompts: prompt and head learn, the encoder stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn.functional import cross_entropy

from firmground.errors import DataError
from firmground.prompts.heads import trainable
from firmground.prompts.rows import NO_TARGET, Batch, Rows

if TYPE_CHECKING:
    from firmground.types import Watch

NARROW = 256  # below this width bfloat16 costs more in conversions than it saves


class Settings(Protocol):
    """What the loop needs to know of a method."""

    @property
    def step_size(self) -> float: ...
    @property
    def head_step_size(self) -> float: ...
    @property
    def epochs(self) -> int: ...
    @property
    def patience(self) -> int: ...
    @property
    def batch_size(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How training went: the best epoch's validation accuracy and loss, and the epochs that ran."""

    accuracy: float
    loss: float
    epochs: int


def train(model: Any, train_rows: Rows, held_out: Rows, how: Settings, *, rng: torch.Generator, watch: Watch) -> Fitted:
    """Trains what is trainable of a PEFT model and leaves it at the epoch that was best on `held_out`.

    Two step sizes, since prompts need large ones; Adam, linear warm-up over a tenth and decay to zero. Stops after
    `patience` epochs without a gain.
    """
    parameters = trainable(model)
    device = next(iter(parameters.values())).device
    prompt = [value for name, value in parameters.items() if "prompt_encoder" in name]
    head = [value for name, value in parameters.items() if "prompt_encoder" not in name]
    optimizer = torch.optim.AdamW(
        [{"params": prompt, "lr": how.step_size}, {"params": head, "lr": how.head_step_size}], weight_decay=0.01
    )
    if how.epochs < 1 or how.batch_size < 1:
        raise DataError(f"epochs and batch_size must be 1 or more, got {how.epochs} and {how.batch_size}")
    total = how.epochs * -(-len(train_rows) // how.batch_size)
    ramp = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / (0.1 * total), 1 - step / total))
    best, kept, stale, step = Fitted(accuracy=-1.0, loss=float("inf"), epochs=0), {}, 0, 0
    for epoch in range(how.epochs):
        for batch in train_rows.batches(how.batch_size, device=device, rng=rng):
            loss = _loss(_logits(model, batch), batch.targets)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
            optimizer.step()
            ramp.step()
            step += 1
            watch(step, total, "tuning the prompt", loss=loss.item(), accuracy=max(best.accuracy, 0.0))
        now = judge(model, held_out, epochs=epoch + 1)
        stale += 1
        if (now.accuracy, -now.loss) > (best.accuracy, -best.loss):
            best, stale = now, 0
            kept = {name: value.detach().clone() for name, value in parameters.items()}
        if stale > how.patience:
            break
    with torch.no_grad():
        for name, value in kept.items():
            parameters[name].copy_(value)
    return best


@torch.no_grad()
def judge(model: Any, rows: Rows, *, epochs: int = 0, batch_size: int = 64) -> Fitted:
    """Accuracy over all targets and mean loss on rows."""
    device = next(iter(trainable(model).values())).device
    right, count, loss = 0, 0, 0.0
    for batch in rows.batches(batch_size, device=device):
        logits = _logits(model, batch)
        real = batch.targets != NO_TARGET
        right += int((logits.argmax(-1) == batch.targets)[real].sum())
        count += int(real.sum())
        loss += _loss(logits, batch.targets).item() * int(real.sum())
    return Fitted(accuracy=right / max(count, 1), loss=loss / max(count, 1), epochs=epochs)


def fast(model: Any, device: torch.device) -> torch.autocast:
    """bfloat16 where it pays: on wide encoders."""
    return torch.autocast(device.type, torch.bfloat16, enabled=model.config.hidden_size >= NARROW)


def _logits(model: Any, batch: Batch) -> torch.Tensor:
    with fast(model, batch.ids.device):
        logits: torch.Tensor = model(input_ids=batch.ids, attention_mask=batch.mask).logits
    return logits.float()


def _loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=NO_TARGET)
