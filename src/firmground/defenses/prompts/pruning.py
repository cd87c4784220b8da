"""Pruning of a visual prompt: pixels that do little are made to do nothing, in hope that a backdoor sits in them.

After fine-pruning (Liu et al., RAID 2018, arXiv 1805.12185), which prunes a network's least active channels while the
accuracy on clean images holds. Here it is the prompt's raw numbers, the least first: a padding's become grey, those of
the other forms nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.defenses.prompts.cleaned import CleanedPrompt, strongest
from firmground.errors import DataError
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.data.labelled_images import LabelledImages
    from firmground.models.classifiers import ImageClassifier
    from firmground.models.dual import DualEncoder
    from firmground.prompts.prompted import LearnedPrompt


@dataclass(frozen=True, kw_only=True)
class PromptPruning:
    """Prunes the largest of `shares` of a prompt's numbers that costs at most `tolerance` of the clean accuracy."""

    name: ClassVar[str] = "prompt-pruning"
    paper: ClassVar[str] = "after Liu et al., Fine-Pruning, RAID 2018 (arXiv 1805.12185)"

    shares: tuple[float, ...] = (0.9, 0.75, 0.5, 0.25, 0.1)
    tolerance: float = 0.01
    batch_size: int = 64

    def __post_init__(self) -> None:
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise DataError(f"expected shares above 0 and at most 1, got {self.shares}")

    def clean(
        self,
        learned: LearnedPrompt,
        base: ImageClassifier | DualEncoder,
        data: LabelledImages,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> CleanedPrompt:
        """Takes clean labelled images; nothing is drawn from `rng`."""
        shape = learned.prompt.shape
        raw = shape.unbounded(learned.prompt.pixels)
        covered = shape.border.to(raw).expand_as(raw).bool() if shape.form == "padding" else torch.ones_like(raw).bool()

        def pruned(share: float) -> torch.Tensor:
            least = raw[covered].abs().flatten().sort().values
            bound = least[max(0, round(share * len(least)) - 1)]
            return torch.where(raw.abs() <= bound, shape.bounded(torch.zeros_like(raw)), learned.prompt.pixels)

        return strongest(self, learned, base, data, sorted(self.shares, reverse=True), pruned, watch)
