"""What `firmground scan` runs on a visual prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmground.defenses.scans.prompt_cleanse import PromptContrast
from firmground.types import Verdict, Watch, ignore

if TYPE_CHECKING:
    import torch

    from firmground.data.labelled_images import LabelledImages
    from firmground.prompts.prompted import PromptedClassifier


def scan_prompt(
    prompted: PromptedClassifier,
    data: LabelledImages,
    *,
    rng: torch.Generator,
    watch: Watch = ignore,
    method: PromptContrast | None = None,
) -> tuple[Verdict, ...]:
    """Judges a prompt on its base by clean labelled images of its labels: one verdict a method."""
    return ((method or PromptContrast()).scan(prompted, data, rng=rng, watch=watch),)
