"""What a run of prompt learning changes, and what it keeps: the present, the best epoch so far, and how good it was."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from firmground.intervals import wilson
from firmground.prompts.mappings import LabelMapping
from firmground.prompts.prompted import PromptedClassifier
from firmground.prompts.visual import PromptShape, VisualPrompt

if TYPE_CHECKING:
    from firmground.models.classifiers import ImageClassifier
    from firmground.prompts.prompted import LearnedPrompt
    from firmground.prompts.visual_prompting import VisualPrompting
    from firmground.types import Interval


class Tuning(torch.nn.Module):
    """What a run changes: raw pixels without bounds, the mapping, and what an addition brings."""

    sources: torch.Tensor

    def __init__(self, how: VisualPrompting, shape: PromptShape, classes: int, labels: int) -> None:
        super().__init__()
        self.kind, self.shape, self.classes = how.mapping, shape, classes
        self.raw = torch.nn.Parameter(shape.start())
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
    """A run under way, as a checkpoint holds it: what it is now, what was best, and how good that was.

    `score` is the best epoch's merit and minus its loss; `hits` are the images of `hits[1]` that it had right.
    """

    score: torch.Tensor
    hits: torch.Tensor
    epoch: torch.Tensor

    def __init__(self, now: Tuning) -> None:
        super().__init__()
        self.now, self.best = now, copy.deepcopy(now).requires_grad_(False)
        self.register_buffer("score", torch.full((2,), -math.inf, dtype=torch.float64))
        self.register_buffer("hits", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("epoch", torch.tensor(0))

    @property
    def accuracy(self) -> Interval:
        """That of the best epoch."""
        right, count = self.hits.tolist()
        return wilson(right, count)

    def keep(self, merit: float, accuracy: Interval, loss: float, epoch: int) -> None:
        """Remembers the present where it is better than the best so far."""
        if (merit, -loss) > tuple(self.score.tolist()):
            self.best.load_state_dict(self.now.state_dict())
            self.score.copy_(torch.tensor([merit, -loss], dtype=torch.float64))
            self.hits.copy_(torch.tensor([round(accuracy.value * accuracy.count), accuracy.count]))
            self.epoch.fill_(epoch)
