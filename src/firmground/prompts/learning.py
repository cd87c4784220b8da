"""The one training loop of visual prompts: the pixels learn, and a fully connected mapping; the base stays as it is.

The count matrix of an iterated mapping comes from the very predictions of the epoch's training steps, where Chen et al.
(CVPR 2023) pass over all images once more: an epoch costs one forward and one backward pass an image, no more.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F

from firmground.errors import DataError, ModelError
from firmground.intervals import wilson
from firmground.models.augmentation import augment
from firmground.models.checkpoints import Checkpoints, Progress
from firmground.prompts.mappings import LabelMapping, by_frequency, by_index, by_meaning, votes
from firmground.prompts.prompted import PromptedClassifier
from firmground.prompts.visual import PromptShape, VisualPrompt
from firmground.rng import stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.classifiers import ImageClassifier
    from firmground.prompts.prompted import LearnedPrompt
    from firmground.prompts.visual_prompting import VisualPrompting
    from firmground.types import Interval, Watch

RECENT = 10  # steps over which the final losses are averaged


class Addition(Protocol):
    """What else a prompt is made to learn, such as a backdoor: further terms of the loss, and a say in the epoch.

    `module` holds what is learned beside the prompt, if anything.
    """

    @property
    def module(self) -> torch.nn.Module | None: ...

    def terms(self, now: PromptedClassifier, rng: torch.Generator, /) -> dict[str, torch.Tensor]:
        """Terms that are added to the loss of one step."""

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


class Tuning(torch.nn.Module):
    """What a run changes: raw pixels without bounds, the mapping, and what an addition brings."""

    sources: torch.Tensor

    def __init__(self, how: VisualPrompting, shape: PromptShape, classes: int, labels: int) -> None:
        super().__init__()
        self.kind, self.shape, self.classes = how.mapping, shape, classes
        self.raw = torch.nn.Parameter(torch.zeros(shape.tensor_shape))
        self.register_buffer("sources", torch.zeros(labels, dtype=torch.int64))
        self.linear = torch.nn.Linear(classes, labels) if how.mapping == "fully-connected" else None
        self.addition: torch.nn.Module | None = None

    def map_to(self, sources: torch.Tensor) -> None:
        """Sets the class of each label; a fully connected mapping begins as this one."""
        self.sources.copy_(sources)
        if self.linear is not None:
            with torch.no_grad():
                self.linear.bias.zero_()
                self.linear.weight.copy_(F.one_hot(sources, self.classes).to(self.linear.weight))

    def begin_as(self, start: LearnedPrompt) -> None:
        """Takes over the pixels and the mapping of a prompt of the same shape and kind of mapping."""
        with torch.no_grad():
            self.raw.copy_(self.shape.unbounded(start.prompt.pixels))
            if start.mapping.sources is not None:
                self.sources.copy_(start.mapping.sources)
            if self.linear is not None and start.mapping.weight is not None and start.mapping.bias is not None:
                self.linear.weight.copy_(start.mapping.weight)
                self.linear.bias.copy_(start.mapping.bias)

    def on(self, base: ImageClassifier) -> PromptedClassifier:
        """The base behind the prompt as it is now; gradients reach what is learned."""
        prompt = VisualPrompt(shape=self.shape, pixels=self.shape.bounded(self.raw))
        return PromptedClassifier(base=base, prompt=prompt, mapping=self.mapping())

    def mapping(self) -> LabelMapping:
        """The label mapping as it is now."""
        if self.linear is None:
            return LabelMapping(kind=self.kind, classes=self.classes, sources=self.sources)
        return LabelMapping(kind=self.kind, classes=self.classes, weight=self.linear.weight, bias=self.linear.bias)


class State(torch.nn.Module):
    """A run under way, as a checkpoint holds it: what it is now, what was best, and how good that was."""

    score: torch.Tensor
    epoch: torch.Tensor

    def __init__(self, now: Tuning) -> None:
        super().__init__()
        self.now, self.best = now, copy.deepcopy(now).requires_grad_(False)
        self.register_buffer("score", torch.full((2,), -math.inf, dtype=torch.float64))
        self.register_buffer("epoch", torch.tensor(0))

    def keep(self, merit: float, loss: float, epoch: int) -> None:
        """Remembers the present where it is better than the best so far."""
        if (merit, -loss) > tuple(self.score.tolist()):
            self.best.load_state_dict(self.now.state_dict())
            self.score.copy_(torch.tensor([merit, -loss]))
            self.epoch.fill_(epoch)


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
    optimizer = torch.optim.Adam(_groups(now, how))
    store = None if resume is None else Checkpoints(folder=resume, run=_identity(base, data, how, addition))
    progress = None if store is None else store.restore(state, optimizer)
    if progress is None:
        progress = Progress(step=0, seed=seed)
        if start is None:
            now.map_to(_first_mapping(base, data, how, now, watch))
        else:
            now.begin_as(start)
    per_epoch = -(-len(data) // how.batch_size)
    for epoch in range(progress.step // per_epoch, how.epochs):
        progress = _epoch(base, data, how, now, optimizer, progress, addition, watch)
        accuracy, loss = judge(now.on(base), held, how)
        with torch.no_grad():
            merit = accuracy.value + (addition.merit(now.on(base)) if addition else 0.0)
        state.keep(merit, loss, epoch + 1)
        if store is not None:
            store.save(progress, state, optimizer)
    if addition is not None and addition.module is not None and state.best.addition is not None:
        addition.module.load_state_dict(state.best.addition.state_dict())
    chosen = state.best.on(base)
    return Outcome(
        prompt=VisualPrompt(shape=shape, pixels=chosen.prompt.pixels.detach()),
        mapping=chosen.mapping,
        accuracy=judge(chosen, held, how)[0],
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
        images, labels = _take(data, rows, base)
        with torch.enable_grad(), _fast(base, how):
            classifier = now.on(base)
            raw = classifier.read(augment(images, how.augmentation, rng=draws), rng=draws)
            terms = {"clean": F.cross_entropy(classifier.mapping(raw).float(), labels)}
            terms |= addition.terms(classifier, draws) if addition else {}
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


@torch.no_grad()
def judge(classifier: PromptedClassifier, data: LabelledImages, how: VisualPrompting) -> tuple[Interval, float]:
    """Accuracy and mean loss on images, batch by batch."""
    right, loss = 0, 0.0
    for start in range(0, len(data), how.batch_size):
        images, labels = _take(data, range(start, min(start + how.batch_size, len(data))), classifier.base)
        with _fast(classifier.base, how):
            logits = classifier.logits(images).float()
        right += int((logits.argmax(dim=1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    return wilson(right, len(data)), loss / len(data)


@torch.no_grad()
def _first_mapping(
    base: ImageClassifier, data: LabelledImages, how: VisualPrompting, now: Tuning, watch: Watch
) -> torch.Tensor:
    """Where the mapping begins, (labels,); by votes under the prompt as it begins, unless it needs none."""
    if how.mapping == "index":
        return by_index(now.classes, len(data.label_names))
    if how.mapping == "semantic":
        if base.encoder is None:
            raise DataError(f"a semantic mapping needs a model that reads texts; {base.source} reads images only")
        return by_meaning(base.encoder, base.class_names, data.label_names, base.templates)
    counts = torch.zeros(now.classes, len(data.label_names), dtype=torch.int64)
    for start in range(0, len(data), how.batch_size):
        images, labels = _take(data, range(start, min(start + how.batch_size, len(data))), base)
        with _fast(base, how):
            counts += votes(now.on(base).read(images).argmax(dim=1), labels, *counts.shape)
        watch(min(start + how.batch_size, len(data)), len(data), "mapping the labels")
    if how.mapping == "fully-connected" and now.classes < len(data.label_names):
        return counts.argmax(dim=0)  # there are too few classes for one each, and it is only a beginning
    return by_frequency(counts)


def _groups(now: Tuning, how: VisualPrompting) -> list[dict[str, object]]:
    """What is learned, and `most`, the largest step size of each."""
    groups: list[dict[str, object]] = [{"params": [now.raw], "most": how.step_size}]
    if now.linear is not None:
        groups.append({"params": list(now.linear.parameters()), "most": how.mapping_step_size})
    if now.addition is not None:
        groups.append({"params": list(now.addition.parameters()), "most": how.step_size})
    return groups


def _identity(
    base: ImageClassifier, data: LabelledImages, how: VisualPrompting, addition: Addition | None
) -> dict[str, str | int]:
    """What a checkpoint must have been of, to be gone on from."""
    return {
        "settings": repr(how),
        "base": base.sha256,
        "images": len(data),
        "labels": ", ".join(data.label_names),
        "addition": repr(addition),
    }


def _batches(count: int, size: int, rng: torch.Generator) -> Iterator[list[int]]:
    order = torch.randperm(count, generator=rng).tolist()
    yield from (order[start : start + size] for start in range(0, count, size))


def _take(data: LabelledImages, rows: list[int] | range, base: ImageClassifier) -> tuple[torch.Tensor, torch.Tensor]:
    some = data.select(list(rows))
    return some.batch(0, len(some)).to(base.device), torch.tensor(some.labels, device=base.device)


def _fast(base: ImageClassifier, how: VisualPrompting) -> torch.autocast:
    return torch.autocast(base.device.type, torch.bfloat16, enabled=how.precision == "bfloat16")


def _mean(history: list[dict[str, float]]) -> dict[str, float]:
    names = history[-1] if history else {}
    return {name: sum(terms[name] for terms in history) / len(history) for name in names}
