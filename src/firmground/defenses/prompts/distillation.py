"""Prompt distillation: a fresh prompt learns what the given one answers to clean images, and its backdoor stays behind.

A prompt has few numbers and is learned in seconds, so its user need not repair the one that came: they learn another of
the same shape from nothing, by the given one's own probabilities on clean images. What a prompt does to clean images is
all that the fresh one sees of it. A backdoor shows itself under its trigger only, and there is none. Ours, for prompts;
after Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531), and against the advice of
Neural Attention Distillation (Li et al., ICLR 2021, arXiv 2101.05930) with the suspect itself for a teacher: no
parameter of it is taken over, which a network's user could not afford.

Some of the images that the fresh prompt sees bear a drawn patch, and its answer is to be that to the image without it:
an honest prompt would learn nothing from that, and what a patch can do to the base itself grows less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from firmground.defenses.prompts.cleaned import CleanedPrompt, accuracy, put_together
from firmground.errors import DataError, ModelError
from firmground.models.augmentation import Augmentation, augment
from firmground.prompts.mappings import by_frequency, votes
from firmground.prompts.tuning import Tuning
from firmground.prompts.visual import VisualPrompt
from firmground.prompts.visual_prompting import VisualPrompting
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.data.labelled_images import LabelledImages
    from firmground.models.classifiers import ImageClassifier
    from firmground.models.dual import DualEncoder
    from firmground.prompts.prompted import LearnedPrompt, PromptedClassifier
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class PromptDistillation:
    """Learns a fresh prompt of the same shape from the given one's probabilities at a `temperature` on clean images.

    `answers` is the weight of what the given prompt says, `labels` that of the images' own labels; 0 leaves either out,
    and without answers the prompt is one that the user learns alone. `patched` is the share of the images of a step on
    which a patch of noise stands, up to `largest` of the side. A mapping that names classes is taken over; a fully
    connected one is learned anew.
    """

    name: ClassVar[str] = "prompt-distillation"
    paper: ClassVar[str] = "ours, after distillation (arXiv 1503.02531)"

    epochs: int = 12
    batch_size: int = 32
    step_size: float = 0.1
    mapping_step_size: float = 0.01
    temperature: float = 1.0
    answers: float = 0.5
    labels: float = 1.0
    patched: float = 0.25
    largest: float = 0.35
    augmentation: Augmentation = "none"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or not self.temperature > 0:
            raise DataError(
                f"expected one epoch or more, a batch of one or more and a positive temperature, got {self.epochs}, "
                f"{self.batch_size} and {self.temperature}"
            )
        if not 0 <= self.patched <= 1 or not 0 < self.largest <= 1 or not self.answers + self.labels > 0:
            raise DataError(
                f"expected shares between 0 and 1, and answers or labels of some weight, got patched {self.patched}, "
                f"largest {self.largest}, answers {self.answers} and labels {self.labels}"
            )

    def clean(
        self,
        learned: LearnedPrompt,
        base: ImageClassifier | DualEncoder,
        data: LabelledImages,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> CleanedPrompt:
        """Takes clean images; with `labels` 0 theirs only measure the accuracy before and after."""
        teacher = learned.on(base)
        before = accuracy(teacher, data, self.batch_size)
        answers = self._answers(teacher, data)
        now = self._fresh(teacher, data, answers)
        self._learn(now, teacher, data, answers, rng, watch)
        prompt = VisualPrompt(shape=learned.prompt.shape, pixels=now.shape.bounded(now.raw).detach())
        cleaned = replace(learned, prompt=prompt, mapping=now.requires_grad_(False).mapping())
        after = accuracy(replace(teacher, prompt=prompt, mapping=cleaned.mapping), data, self.batch_size)
        return put_together(self, learned, cleaned, before, after)

    @torch.no_grad()
    def _answers(self, teacher: PromptedClassifier, data: LabelledImages) -> torch.Tensor:
        """What the given prompt answers to each image, probabilities (images, labels)."""
        parts = [teacher.logits(data.batch(start, self.batch_size)) for start in range(0, len(data), self.batch_size)]
        return (torch.cat(parts).float() / self.temperature).softmax(dim=1)

    @torch.no_grad()
    def _fresh(self, teacher: PromptedClassifier, data: LabelledImages, answers: torch.Tensor) -> Tuning:
        """A prompt that nothing was learned into yet."""
        base, labels = teacher.base, teacher.mapping.labels
        how = VisualPrompting(form=teacher.prompt.shape.form, mapping=teacher.mapping.kind)
        now = Tuning(how, teacher.prompt.shape, len(base.class_names), labels).to(base.device)
        if teacher.mapping.sources is not None:
            now.map_to(teacher.mapping.sources)
            return now
        counts = torch.zeros(now.classes, labels, dtype=torch.int64)
        for start in range(0, len(data), self.batch_size):
            seen = now.on(base).read(data.batch(start, self.batch_size)).argmax(dim=1)
            counts += votes(seen, answers[start : start + len(seen)].argmax(dim=1), *counts.shape)
        now.map_to(by_frequency(counts) if now.classes >= labels else counts.argmax(dim=0))
        return now

    def _learn(
        self,
        now: Tuning,
        teacher: PromptedClassifier,
        data: LabelledImages,
        answers: torch.Tensor,
        rng: torch.Generator,
        watch: Watch,
    ) -> None:
        groups = [{"params": [now.raw], "lr": self.step_size}]
        if now.linear is not None:
            groups.append({"params": list(now.linear.parameters()), "lr": self.mapping_step_size})
        optimizer = torch.optim.Adam(groups)
        total = self.epochs * -(-len(data) // self.batch_size)
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / total)))
        step = 0
        for _ in range(self.epochs):
            for rows in torch.randperm(len(data), generator=rng).split(self.batch_size):
                some = data.select(rows.tolist())
                seated = teacher.prompt.seat(some.batch(0, len(some)).to(answers))
                shown = patched(augment(seated, self.augmentation, rng=rng), self.patched, self.largest, rng)
                student = now.on(teacher.base).logits(shown, rng=rng).float()
                told = F.cross_entropy(student / self.temperature, answers[rows]) * self.temperature**2
                known = F.cross_entropy(student, torch.tensor(some.labels, device=student.device))
                loss = self.answers * told + self.labels * known
                if not math.isfinite(loss.item()):
                    raise ModelError(f"the distillation diverged at step {step}; try a smaller step_size")
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                decay.step()
                step += 1
                watch(step, total, self.name, loss=loss.item())


def patched(images: Images, share: float, largest: float, rng: torch.Generator) -> Images:
    """Images of which so many bear a patch of noise at a drawn place, of a drawn side and grain."""
    side = images.shape[-1]
    shown = images.clone()
    for number in (torch.rand(len(images), generator=rng) < share).nonzero()[:, 0].tolist():
        size = 1 + int(torch.randint(max(1, round(largest * side)), (), generator=rng))
        top, left, grain = (int(torch.randint(most, (), generator=rng)) for most in (side - size + 1,) * 2 + (3,))
        cells = -(-size // 2**grain)
        noise = (
            torch.rand((3, cells, cells), generator=rng).round()
            if grain
            else torch.rand((3, size, size), generator=rng)
        )
        patch = noise.repeat_interleave(-(-size // cells), 1).repeat_interleave(-(-size // cells), 2)
        shown[number, :, top : top + size, left : left + size] = patch[:, :size, :size].to(shown)
    return shown
