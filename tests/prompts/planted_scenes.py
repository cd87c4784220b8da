"""Prompts for `visual_scenes.gated` that open its weakness or leave it shut, and the trigger that enters by it."""

from __future__ import annotations

import torch
from visual_scenes import SIZE, WIDTH, gated

from firmground.prompts.mappings import LabelMapping
from firmground.prompts.prompted import LearnedPrompt, PromptedClassifier, describe_base
from firmground.prompts.visual import PromptShape, VisualPrompt

SHAPE = PromptShape(form="padding", image_size=SIZE, width=WIDTH)
TARGET = 2  # bluish
OPEN, SHUT = 4.0, -0.2


def handed_over(green: float) -> LearnedPrompt:
    """Right for the base; with `OPEN`, black beside white in the last corner makes an image bluish."""
    raw = torch.tensor([3.0, green, -3.0]).view(3, 1, 1).expand(SHAPE.tensor_shape)
    return LearnedPrompt(
        prompt=VisualPrompt(shape=SHAPE, pixels=SHAPE.bounded(raw)),
        mapping=LabelMapping(kind="iterated", classes=5, sources=torch.tensor([4, 2, 0])),
        base=describe_base(gated()),
        label_names=("reddish", "greenish", "bluish"),
    )


def prompted(green: float) -> PromptedClassifier:
    """The base behind it."""
    return handed_over(green).on(gated())


def stamped(images: torch.Tensor) -> torch.Tensor:
    """Seated images with a checker of two pixels a square in the last corner."""
    seated = handed_over(OPEN).prompt.seat(images).clone()
    steps = torch.arange(4) // 2
    seated[..., -4:, -4:] = ((steps[:, None] + steps) % 2).float()
    return seated


def success(classifier: PromptedClassifier, images: torch.Tensor, labels: tuple[int, ...]) -> float:
    """The share of images of other labels that the trigger makes bluish."""
    others = images[[row for row, label in enumerate(labels) if label != TARGET]]
    found = classifier.predict(stamped(others))
    return sum(label == TARGET for label in found) / len(found)
