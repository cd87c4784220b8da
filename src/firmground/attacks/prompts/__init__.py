"""Attacks on prompts: a provider learns a backdoor into what it hands over, with `implant(base, data)`."""

from firmground.attacks.prompts.bad_visual_prompt import BadVisualPrompt, PlantedPrompt
from firmground.attacks.prompts.placed import PlacedTrigger

__all__ = ["PROMPT_ATTACKS", "BadVisualPrompt", "PlacedTrigger", "PlantedPrompt"]

PROMPT_ATTACKS = (BadVisualPrompt,)
