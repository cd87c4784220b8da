"""Clean fine-tuning of a visual prompt: its user goes on learning it, on images that are known to be clean.

Fine-tuning is the plainest cleaning of a backdoored network (Liu et al., "Fine-Pruning", RAID 2018, arXiv 1805.12185);
of a prompt it costs little, for the base stays frozen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from firmground.defenses.prompts.cleaned import CleanedPrompt, accuracy, check_labels, put_together
from firmground.models.augmentation import Augmentation
from firmground.prompts.learning import learn
from firmground.prompts.visual_prompting import VisualPrompting, split_rows
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    import torch

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.classifiers import ImageClassifier
    from firmground.models.dual import DualEncoder
    from firmground.prompts.prompted import LearnedPrompt


@dataclass(frozen=True, kw_only=True)
class PromptFinetune:
    """Learns on from the prompt, on clean images, and takes the epoch that is best on `validation` of them."""

    name: ClassVar[str] = "prompt-finetune"
    paper: ClassVar[str] = "after Liu et al., Fine-Pruning, RAID 2018 (arXiv 1805.12185)"

    epochs: int = 5
    batch_size: int = 64
    step_size: float = 0.05
    augmentation: Augmentation = "none"
    validation: float = 0.2

    def clean(
        self,
        learned: LearnedPrompt,
        base: ImageClassifier | DualEncoder,
        data: LabelledImages,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> CleanedPrompt:
        """Takes clean labelled images of the prompt's own labels, two of each at least."""
        check_labels(learned, data)
        classifier = learned.on(base)
        before = accuracy(classifier, data, self.batch_size)
        how = VisualPrompting(
            form=learned.prompt.shape.form,
            mapping=learned.mapping.kind,
            epochs=self.epochs,
            batch_size=self.batch_size,
            step_size=self.step_size,
            augmentation=self.augmentation,
        )
        rest, held = split_rows(data, self.validation, rng)
        found = learn(
            classifier.base,
            data.select(rest),
            how,
            learned.prompt.shape,
            rng=rng,
            watch=watch,
            held=data.select(held),
            start=learned,
        )
        cleaned = replace(learned, prompt=found.prompt, mapping=found.mapping)
        after = accuracy(replace(classifier, prompt=found.prompt, mapping=found.mapping), data, self.batch_size)
        return put_together(self, learned, cleaned, before, after)
