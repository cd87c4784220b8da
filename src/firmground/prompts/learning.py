"""The one training loop of visual prompts: the pixels learn, and a fully connected mapping; the base stays as it is.

The count matrix of an iterated mapping comes from the very predictions of the epoch's training steps, where Chen et al.
(CVPR 2023) pass over all images once more: an epoch costs one forward and one backward pass an image, no more. What
stays the same is done once: images that are not augmented are seated before the first step, and batch norms are folded.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F

from firmground.errors import ModelError
from firmground.models.augmentation import augment
from firmground.models.checkpoints import Checkpoints, Progress
from firmground.models.folding import folded
from firmground.prompts.judging import fast, first_mapping, judge, take
from firmground.prompts.mappings import LabelMapping, by_frequency, votes
from firmground.prompts.seating import seated
from firmground.prompts.tuning import State, Tuning
from firmground.prompts.visual import PromptShape, VisualPrompt
from firmground.rng import stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.classifiers import ImageClassifier
    from firmground.prompts.prompted import LearnedPrompt, PromptedClassifier
    from firmground.prompts.visual_prompting import VisualPrompting
    from firmground.types import Interval, Watch

RECENT = 10  # steps over which the final losses are averaged


class Addition(Protocol):
    """What else a prompt is made to learn, such as a backdoor: further terms of the loss, and a say in the epoch.

    `module` holds what is learned beside the prompt, if anything, in steps of `step_size`.
    """

    @property
    def module(self) -> torch.nn.Module | None: ...

    @property
    def step_size(self) -> float: ...

    def terms(self, now: PromptedClassifier, rng: torch.Generator, rate: float, /) -> dict[str, torch.Tensor]:
        """Terms that are added to the loss of one step; `rate` falls from 1 to 0 as the step size does."""

    def merit(self, now: PromptedClassifier, /) -> float:
        """What is added to the validation accuracy where the best epoch is chosen."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a run ends with: its best epoch's prompt and mapping, and that epoch's accuracy on validation images."""

    prompt: VisualPrompt
    mapping: LabelMapping
    accuracy: Interval
    epoch: int
    steps: int
    losses: dict[str, float]


def learn(
    base: ImageClassifier,
    data: LabelledImages,
    how: VisualPrompting,
    shape: PromptShape,
    *,
    rng: torch.Generator,
    watch: Watch,
    resume: Path | None = None,
    held: LabelledImages,
    addition: Addition | None = None,
    start: LearnedPrompt | None = None,
) -> Outcome:
    """Learns a prompt on `data`, from `start` on if given, and leaves it at the epoch that was best on `held`.

    With a folder `resume` it goes on from the latest epoch there; on the CPU a run that was killed and resumed ends in
    the same prompt, bit for bit. Raises `DataError`, `ModelError` where the loss is no number, `BrokenModelError` for
    another run's checkpoint.
    """
    seed = int(torch.randint(2**62, (), generator=rng))
    now = Tuning(how, shape, len(base.class_names), len(data.label_names))
    now.addition = None if addition is None else addition.module
    state = State(now).to(base.device)
    optimizer = torch.optim.Adam(_groups(now, how, addition))
    store = None if resume is None else Checkpoints(folder=resume, run=_identity(base, data, how, addition, start))
    progress = None if store is None else store.restore(state, optimizer)
    base, held = folded(base), seated(held, shape)
    data = seated(data, shape) if how.augmentation == "none" else data
    if progress is None:
        progress = Progress(step=0, seed=seed)
        if start is None:
            now.map_to(first_mapping(base, data, how, now, watch))
        else:
            now.begin_as(start)
    per_epoch = -(-len(data) // how.batch_size)
    for epoch in range(progress.step // per_epoch, how.epochs):
        progress = _epoch(base, data, how, now, optimizer, progress, addition, watch)
        accuracy, loss = judge(now.on(base), held, how)
        with torch.no_grad():
            merit = accuracy.value + (addition.merit(now.on(base)) if addition else 0.0)
        state.keep(merit, accuracy, loss, epoch + 1)
        if store is not None:
            store.save(progress, state, optimizer)
    if addition is not None and addition.module is not None and state.best.addition is not None:
        addition.module.load_state_dict(state.best.addition.state_dict())
    chosen = state.best.on(base)
    return Outcome(
        prompt=VisualPrompt(shape=shape, pixels=chosen.prompt.pixels.detach()),
        mapping=chosen.mapping,
        accuracy=state.accuracy,
        epoch=int(state.epoch),
        steps=progress.step,
        losses=_mean(progress.history),
    )


def _epoch(
    base: ImageClassifier,
    data: LabelledImages,
    how: VisualPrompting,
    now: Tuning,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    addition: Addition | None,
    watch: Watch,
) -> Progress:
    """One pass over the data, after which an iterated mapping is that of the pass's own predictions."""
    per_epoch = -(-len(data) // how.batch_size)
    total, step, seed = how.epochs * per_epoch, progress.step, progress.seed
    history, counts = list(progress.history), torch.zeros(now.classes, len(data.label_names), dtype=torch.int64)
    for rows in _batches(len(data), how.batch_size, stream(seed, "order", step // per_epoch)):
        draws = stream(seed, "step", step)
        rate = 0.5 * (1 + math.cos(math.pi * step / total))
        for group in optimizer.param_groups:
            group["lr"] = group["most"] * rate
        images, labels = take(data, rows, base)
        with torch.enable_grad(), fast(base, how):
            classifier = now.on(base)
            raw = classifier.read(augment(images, how.augmentation, rng=draws), rng=draws)
            terms = {"clean": F.cross_entropy(classifier.mapping(raw).float(), labels)}
            terms |= addition.terms(classifier, draws, rate) if addition else {}
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        found = {name: float(term.detach()) for name, term in terms.items()}
        if not all(math.isfinite(value) for value in found.values()):
            raise ModelError(f"the learning diverged at step {step}; try a smaller step_size than {how.step_size}")
        optimizer.step()
        counts += votes(raw.detach().argmax(dim=1), labels, *counts.shape)
        step, history = step + 1, [*history, found][-RECENT:]
        watch(step, total, "learning the prompt", **found)
    if now.kind == "iterated":
        now.map_to(by_frequency(counts))
    return Progress(step=step, seed=seed, history=history)


def _groups(now: Tuning, how: VisualPrompting, addition: Addition | None) -> list[dict[str, object]]:
    """What is learned, and `most`, the largest step size of each."""
    groups: list[dict[str, object]] = [{"params": [now.raw], "most": how.step_size}]
    if now.linear is not None:
        groups.append({"params": list(now.linear.parameters()), "most": how.mapping_step_size})
    if addition is not None and now.addition is not None:
        groups.append({"params": list(now.addition.parameters()), "most": addition.step_size})
    return groups


def _identity(
    base: ImageClassifier,
    data: LabelledImages,
    how: VisualPrompting,
    addition: Addition | None,
    start: LearnedPrompt | None,
) -> dict[str, str | int]:
    """What a checkpoint must have been of, to be gone on from."""
    return {
        "settings": repr(how),
        "base": base.sha256,
        "images": _sha256(data.images, torch.tensor(data.labels)),
        "labels": ", ".join(data.label_names),
        "addition": repr(addition),
        "start": "" if start is None else _sha256(start.prompt.pixels),
    }


def _sha256(*tensors: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _batches(count: int, size: int, rng: torch.Generator) -> Iterator[list[int]]:
    order = torch.randperm(count, generator=rng).tolist()
    yield from (order[start : start + size] for start in range(0, count, size))


def _mean(history: list[dict[str, float]]) -> dict[str, float]:
    names = history[-1] if history else {}
    return {name: sum(terms[name] for terms in history) / len(history) for name in names}
