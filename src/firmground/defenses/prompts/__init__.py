"""Cleaning visual prompts: `clean(learned, base, data)` gives back a prompt that a backdoor may have left.

The paper of BadVisualPrompt (arXiv 2310.07632) finds that such defences fail; they are here to be measured.
"""

from firmground.defenses.prompts.cleaned import CleanedPrompt
from firmground.defenses.prompts.distillation import PromptDistillation
from firmground.defenses.prompts.finetuning import PromptFinetune
from firmground.defenses.prompts.pruning import PromptPruning
from firmground.defenses.prompts.smoothing import PromptSmoothing

__all__ = [
    "PROMPT_CLEANERS",
    "CleanedPrompt",
    "PromptDistillation",
    "PromptFinetune",
    "PromptPruning",
    "PromptSmoothing",
]

PROMPT_CLEANERS = (PromptDistillation, PromptFinetune, PromptPruning, PromptSmoothing)
