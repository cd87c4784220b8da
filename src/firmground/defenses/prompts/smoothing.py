"""Smoothing of a visual prompt: a blur takes away the fine detail in which a backdoor may sit.

Ours, as the plainest of prompt-level defences against BadVisualPrompt (arXiv 2310.07632). A padding is blurred along
its border alone: what lies inside has no part in the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from firmground.defenses.prompts.cleaned import CleanedPrompt, strongest
from firmground.errors import DataError
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.data.labelled_images import LabelledImages
    from firmground.models.classifiers import ImageClassifier
    from firmground.models.dual import DualEncoder
    from firmground.prompts.prompted import LearnedPrompt
    from firmground.prompts.visual import PromptShape


@dataclass(frozen=True, kw_only=True)
class PromptSmoothing:
    """Averages over squares of the largest of `radii`, in pixels, that costs at most `tolerance` of clean accuracy."""

    name: ClassVar[str] = "prompt-smoothing"
    paper: ClassVar[str] = "ours, against BadVisualPrompt (arXiv 2310.07632)"

    radii: tuple[int, ...] = (8, 4, 2, 1)
    tolerance: float = 0.01
    batch_size: int = 64

    def __post_init__(self) -> None:
        if not self.radii or not all(radius >= 1 for radius in self.radii):
            raise DataError(f"expected radii of one pixel or more, got {self.radii}")

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
        prompt = learned.prompt
        if prompt.shape.form == "tokens":
            raise DataError("a prompt of tokens has no pixels to smooth; fine-tune it, or prune it")

        def blurred(radius: float) -> torch.Tensor:
            return blur(prompt.pixels, prompt.shape, int(radius))

        return strongest(self, learned, base, data, sorted(self.radii, reverse=True), blurred, watch)


def blur(pixels: torch.Tensor, shape: PromptShape, radius: int) -> torch.Tensor:
    """The mean over squares of 2 * radius + 1 pixels a side, as far as they belong to the prompt."""
    mine = shape.border.to(pixels) if shape.form == "padding" else torch.ones_like(pixels[:1])
    size = 2 * radius + 1
    summed, count = (F.avg_pool2d(values[None], size, stride=1, padding=radius)[0] for values in (pixels * mine, mine))
    return (summed / count.clamp(min=1e-6)).clamp(shape.lowest, 1.0) * mine
