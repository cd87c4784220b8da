"""Prompt distillation: a fresh prompt instead of the one that came, so that its backdoor stays behind.

A prompt has few numbers and is learned in seconds, so its user need not repair the one that came: they learn another
from nothing on their clean images, by the labels and, with `answers`, by the given one's own probabilities. What a
prompt does to clean images is all that the fresh one sees of it. A backdoor shows itself under its trigger only, and
there is none. Ours, for prompts; after Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv
1503.02531), and against the advice of Neural Attention Distillation (Li et al., ICLR 2021, arXiv 2101.05930) with the
suspect itself for a teacher: no parameter of it is taken over, which a network's user could not afford.

The answers let images teach whose labels nobody knows. But a backdoored prompt takes more clean images for the target
than there are, and what it answers hands that on; so by default the labels alone teach. The fresh prompt need not have
the given one's form: pixels added over all of the image hold more of what there is to learn than a border around a
smaller one.

Few images need many epochs: on 250 of a provider's own, 60 gave 73.6 % where 30 gave 71.5 and 120 gave 74.5, but at 120
the trigger of a wide patch led more images to its target. Flips, shifts, mixed images, weight decay and averaged
weights gained nothing there.

What is left then is what a trigger does to the base itself, behind any prompt. Some of the images that the fresh prompt
sees bear a drawn patch, and its answer is to be that to the image without: an honest prompt would learn nothing from
that. More and larger patches, and patterns over the whole image, were tried and left no less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F

from firmground.data.pairs import as_float
from firmground.defenses.prompts._images import patched, with_further
from firmground.defenses.prompts.cleaned import CleanedPrompt, accuracy, check_labels, put_together
from firmground.errors import DataError, ModelError
from firmground.models.augmentation import Augmentation, augment
from firmground.prompts.mappings import by_frequency, votes
from firmground.prompts.seating import seated
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

LABELLED = 0.25


@dataclass(frozen=True, kw_only=True)
class PromptDistillation:
    """Learns a fresh prompt on clean images, by their labels and the given prompt's probabilities at a `temperature`.

    `answers` is the weight of what the given prompt says, `labels` that of the images' own labels; 0 leaves either out,
    and without answers the prompt is one that the user learns alone. `patched` is the share of the images of a step on
    which a patch of noise stands, up to `largest` of the side. `form` is that of the fresh prompt, or "same". A mapping
    that names classes is taken over; a fully connected one is learned anew.
    """

    name: ClassVar[str] = "prompt-distillation"
    paper: ClassVar[str] = "ours, after distillation (arXiv 1503.02531)"

    form: Literal["same", "padding", "full-image"] = "full-image"
    epochs: int = 60
    batch_size: int = 32
    step_size: float = 0.1
    mapping_step_size: float = 0.02
    temperature: float = 1.0
    answers: float = 0.0
    labels: float = 1.0
    patched: float = 0.25
    largest: float = 0.35
    augmentation: Augmentation = "none"

    def __post_init__(self) -> None:
        sizes = (self.step_size, self.mapping_step_size, self.temperature)
        if self.epochs < 1 or self.batch_size < 1 or not all(0 < size < math.inf for size in sizes):
            raise DataError(
                f"expected one epoch or more, a batch of one or more, positive step sizes and temperature, got "
                f"{self.epochs}, {self.batch_size}, {', '.join(map(str, sizes))}"
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
        further: Images | None = None,
    ) -> CleanedPrompt:
        """Takes clean images; with `labels` 0 theirs only measure the accuracy before and after.

        `further` are clean images without labels, (count, 3, height, width), as large as those of `data`. Raises
        `DataError` for them where the given prompt's answers have no weight.
        """
        if further is not None and not self.answers:
            raise DataError(
                "images without labels teach by what the given prompt answers to them, which has no weight; set "
                "answers to 1, or leave them out"
            )
        check_labels(learned, data)
        teacher = learned.on(base)
        before = accuracy(teacher, data, self.batch_size)
        whole = data if further is None else with_further(data, further)
        answers = self._answers(teacher, whole)
        now = self._fresh(teacher, whole, self._believed(answers, data))
        self._learn(now, teacher.base, whole, len(data), answers, rng, watch)
        prompt = VisualPrompt(shape=now.shape, pixels=now.shape.bounded(now.raw).detach())
        cleaned = replace(learned, prompt=prompt, mapping=now.requires_grad_(False).mapping())
        after = accuracy(replace(teacher, prompt=prompt, mapping=cleaned.mapping), data, self.batch_size)
        return put_together(self, learned, cleaned, before, after)

    @torch.no_grad()
    def _answers(self, teacher: PromptedClassifier, data: LabelledImages) -> torch.Tensor:
        """What the given prompt answers to each image, probabilities (images, labels)."""
        parts = [teacher.logits(data.batch(start, self.batch_size)) for start in range(0, len(data), self.batch_size)]
        return (torch.cat(parts).float() / self.temperature).softmax(dim=1)

    def _believed(self, answers: torch.Tensor, data: LabelledImages) -> torch.Tensor:
        """The label of every image, (images,): its own where it counts and is known, else what the prompt answers."""
        said = answers.argmax(dim=1)
        if self.labels:
            said[: len(data)] = torch.tensor(data.labels, device=said.device)
        return said

    @torch.no_grad()
    def _fresh(self, teacher: PromptedClassifier, data: LabelledImages, believed: torch.Tensor) -> Tuning:
        """A prompt that nothing was learned into yet."""
        base, labels, given = teacher.base, teacher.mapping.labels, teacher.prompt.shape
        how = VisualPrompting(form=given.form if self.form == "same" else self.form, mapping=teacher.mapping.kind)
        shape = given if how.form == given.form else how.shape(base)
        now = Tuning(how, shape, len(base.class_names), labels).to(base.device)
        if teacher.mapping.sources is not None:
            now.map_to(teacher.mapping.sources)
            return now
        counts = torch.zeros(now.classes, labels, dtype=torch.int64)
        for start in range(0, len(data), self.batch_size):
            seen = now.on(base).read(data.batch(start, self.batch_size)).argmax(dim=1)
            counts += votes(seen, believed[start : start + len(seen)], *counts.shape)
        now.map_to(by_frequency(counts) if now.classes >= labels else counts.argmax(dim=0))
        return now

    def _learn(
        self,
        now: Tuning,
        base: ImageClassifier,
        data: LabelledImages,
        known: int,
        answers: torch.Tensor,
        rng: torch.Generator,
        watch: Watch,
    ) -> None:
        """Steps on all images; the first `known` have labels, which count as if a quarter of all had them or more."""
        data, share = seated(data, now.shape), max(known / len(data), LABELLED)
        labels = torch.tensor(data.labels, device=answers.device)
        groups = [{"params": [now.raw], "lr": self.step_size}]
        if now.linear is not None:
            groups.append({"params": list(now.linear.parameters()), "lr": self.mapping_step_size})
        optimizer = torch.optim.Adam(groups)
        total = self.epochs * -(-len(data) // self.batch_size)
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / total)))
        step = 0
        for _ in range(self.epochs):
            for rows in torch.randperm(len(data), generator=rng).split(self.batch_size):
                images = as_float(data.images[rows]).to(answers)
                shown = patched(augment(images, self.augmentation, rng=rng), self.patched, self.largest, rng)
                student = now.on(base).logits(shown, rng=rng).float()
                told = F.cross_entropy(student / self.temperature, answers[rows]) * self.temperature**2
                sure = rows < known
                right = F.cross_entropy(student[sure], labels[rows][sure], reduction="sum") / (share * len(rows))
                loss = self.answers * told + self.labels * right
                if not math.isfinite(loss.item()):
                    raise ModelError(f"the distillation diverged at step {step}; try a smaller step_size")
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                decay.step()
                step += 1
                watch(step, total, self.name, loss=loss.item())
