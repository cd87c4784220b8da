"""The training loop for dual encoders, written once: schedule, optimizer, many devices, checkpoints, progress.

AdamW as CLIP is trained (Radford et al., ICML 2021): no weight decay on norms, biases and the logit scale, warm-up,
cosine to zero, a logit scale of at most 100. `accelerate` runs it on one device or, under `accelerate launch`, on many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import torch

from firmground.bounds import ABOVE_0, FROM_0, check_bounds
from firmground.errors import DataError, ModelError
from firmground.models.checkpoints import Checkpoints, Progress
from firmground.rng import stream

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.data.pairs import PairBatch, PairSet
    from firmground.types import Watch

LARGEST_SCALE = math.log(100)
RECENT = 10  # steps over which the final losses are averaged


@dataclass(frozen=True, kw_only=True)
class Training:
    """What all trainings of dual encoders set. `batch_size` is that of all devices together.

    The step size goes from `first_step_size` to `step_size` over `warm_up` steps (below 1: that share of all steps;
    half of them at most), then by a cosine to zero. `clip` bounds the norm of the gradient.
    """

    epochs: int = 10
    batch_size: int = 64
    step_size: float = 1e-5
    first_step_size: float = 0.0
    warm_up: float = 50
    weight_decay: float = 0.1
    beta2: float = 0.999
    clip: float = 1.0
    save_every: int = 200  # steps between checkpoints, where there is a folder for them

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or self.save_every < 1:
            raise DataError(
                f"expected at least one epoch, batches of at least two and a positive save_every, got {self.epochs}, "
                f"{self.batch_size} and {self.save_every}"
            )
        check_bounds(self, step_size=ABOVE_0, first_step_size=FROM_0, warm_up=FROM_0, weight_decay=FROM_0, clip=ABOVE_0)
        if not 0 < self.beta2 < 1:
            raise DataError(f"expected beta2 between 0 and 1, got {self.beta2}")


class Objective(Protocol):
    """Terms of a loss, which are summed; draws what is random from `rng`, which is the step's own."""

    def __call__(self, module: Any, batch: PairBatch, rng: torch.Generator, /) -> dict[str, torch.Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a training went: steps done, and each term of the loss over the last of them."""

    steps: int
    losses: dict[str, float]


@dataclass(kw_only=True)
class Run:
    """A training under way."""

    module: Any
    optimizer: Any
    accelerator: Any
    how: Training
    objective: Objective
    total: int
    largest_scale: float
    progress: Progress


def fit(
    module: torch.nn.Module,
    pairs: PairSet,
    how: Training,
    objective: Objective,
    *,
    rng: torch.Generator,
    watch: Watch,
    stage: str,
    resume: Path | None = None,
    run: dict[str, str | int] | None = None,
) -> Fitted:
    """Trains `module` in place. With a folder `resume` it goes on from the latest checkpoint there, and leaves some.

    On the CPU a run that was killed and resumed ends in the same weights, bit for bit, as one that was not. What an
    epoch leaves over from full batches is left out of it. Raises `DataError` for a batch larger than the set,
    `ModelError` where the loss is no number, `BrokenModelError` for another run's checkpoint.
    """
    check_batch(how, pairs)
    seed, per_epoch = int(torch.randint(2**62, (), generator=rng)), len(pairs) // how.batch_size
    this = _prepared(module, how, objective, per_epoch * how.epochs, seed)
    plain, bare = this.accelerator.unwrap_model(this.module), getattr(this.optimizer, "optimizer", this.optimizer)
    store = None if resume is None else Checkpoints(folder=resume, run={"settings": repr(how)} | (run or {}))
    this.progress = (store.restore(plain, bare) if store else None) or this.progress
    while this.progress.step < this.total:
        epoch, done = divmod(this.progress.step, per_epoch)
        order = stream(this.progress.seed, "order", epoch)
        for batch in islice(pairs.batches(how.batch_size, order), done, per_epoch):
            terms = _step(this, batch)
            watch(this.progress.step, this.total, stage, **terms)
            due = this.progress.step % how.save_every == 0 or this.progress.step == this.total
            if store and due and this.accelerator.is_main_process:
                store.save(this.progress, plain, bare)
        missing = (epoch + 1) * per_epoch - this.progress.step  # batches of which no image could be read
        this.progress = _advanced(this.progress, missing, None)
    return Fitted(steps=this.progress.step, losses=_mean(this.progress.history))


def check_batch(how: Training, pairs: PairSet) -> None:
    """Raises `DataError` for a batch larger than the set."""
    if how.batch_size > len(pairs):
        raise DataError(
            f"a batch of {how.batch_size} cannot be taken from {len(pairs)} pairs; choose a smaller batch_size"
        )


def _prepared(module: torch.nn.Module, how: Training, objective: Objective, total: int, seed: int) -> Run:
    from accelerate import Accelerator, DistributedDataParallelKwargs

    spread = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(device_placement=False, kwargs_handlers=[spread])
    if accelerator.num_processes > 1:
        module.to(accelerator.device)
    scales = [float(value.detach()) for name, value in module.named_parameters() if name.endswith("logit_scale")]
    module.train()
    module.zero_grad(set_to_none=True)  # what an earlier training left would count in the norm that is clipped
    optimizer = torch.optim.AdamW(groups(module, how.weight_decay), lr=how.step_size, betas=(0.9, how.beta2))
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    return Run(
        module=wrapped, optimizer=optimizer, accelerator=accelerator, how=how, objective=objective, total=total,
        largest_scale=max([LARGEST_SCALE, *scales]), progress=Progress(step=0, seed=seed),
    )  # fmt: skip


def _step(run: Run, batch: PairBatch) -> dict[str, float]:
    """One step of the optimizer; a batch of which fewer than two images could be read is only counted."""
    step, seed = run.progress.step, run.progress.seed
    if len(batch) < 2:
        run.progress = _advanced(run.progress, 1, None)
        return {}
    for group in run.optimizer.param_groups:
        group["lr"] = rate(step, run.total, run.how)
    run.optimizer.zero_grad()
    with torch.enable_grad(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(int(torch.randint(2**62, (), generator=stream(seed, "dropout", step))))
        terms = run.objective(run.module, batch, stream(seed, "step", step))
        # each process has the gradient of its own share of the batch, and their mean is taken
        run.accelerator.backward(torch.stack(list(terms.values())).sum() * run.accelerator.num_processes)
    found = {name: float(term.detach()) for name, term in terms.items()}
    norm = run.accelerator.clip_grad_norm_(run.module.parameters(), run.how.clip)
    if not all(math.isfinite(value) for value in found.values()) or not bool(torch.isfinite(norm)):
        raise ModelError(f"the training diverged at step {step}; try a smaller step_size than {run.how.step_size}")
    run.optimizer.step()
    for name, value in run.module.named_parameters():
        if name.endswith("logit_scale"):
            value.data.clamp_(0.0, run.largest_scale)
    run.progress = _advanced(run.progress, 1, found)
    return found


def groups(module: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What is trained, with and without weight decay: norms, biases and scales are those of one dimension or none."""
    trained = [value for value in module.parameters() if value.requires_grad]
    return [
        {"params": [value for value in trained if value.ndim >= 2], "weight_decay": weight_decay},
        {"params": [value for value in trained if value.ndim < 2], "weight_decay": 0.0},
    ]


def rate(step: int, total: int, how: Training) -> float:
    """The step size of a step, the first being 0."""
    rising = min(how.warm_up if how.warm_up >= 1 else how.warm_up * total, total / 2)
    if step < rising:
        share = (step + 1) / math.ceil(rising)
        return (1 - share) * how.first_step_size + share * how.step_size
    return how.step_size * 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))


def _advanced(progress: Progress, steps: int, losses: dict[str, float] | None) -> Progress:
    history = progress.history if losses is None else [*progress.history, losses][-RECENT:]
    return Progress(step=progress.step + steps, seed=progress.seed, history=history)


def _mean(history: list[dict[str, float]]) -> dict[str, float]:
    names = history[-1] if history else {}
    return {name: sum(terms.get(name, 0.0) for terms in history) / len(history) for name in names}
