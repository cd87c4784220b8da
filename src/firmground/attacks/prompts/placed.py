"""A patch at a given distance from the edge of what a prompt leaves to the image, or a trigger over all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from firmground.errors import DataError

if TYPE_CHECKING:
    from firmground.attacks.triggers import ImageTrigger
    from firmground.prompts.visual import VisualPrompt
    from firmground.types import Images

Pattern: TypeAlias = Literal["checker", "noise", "stripes"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedTrigger:
    """Stamps `trigger` inside a margin of `distance` pixels, so that a patch in a corner stands so far from the edge.

    Images are first seated as the prompt that they will meet seats them: the trigger keeps its pixels.
    """

    trigger: ImageTrigger
    distance: int = 0

    def stamp(self, images: Images, prompt: VisualPrompt, *, rng: torch.Generator) -> Images:
        """Triggered images of `prompt.shape.inner` pixels a side, in [0, 1]; gradients reach a learned pattern."""
        return self.stamp_seated(prompt.seat(images), rng=rng)

    def stamp_seated(self, seated: Images, *, rng: torch.Generator) -> Images:
        """The same of images that are seated."""
        if not self.distance:
            return self.trigger.stamp(seated, rng=rng)
        far = self.distance
        if min(seated.shape[-2:]) <= 2 * far:
            raise DataError(f"a margin of {far} pixels leaves nothing of images of {min(seated.shape[-2:])}")
        stamped = seated.clone()
        stamped[..., far:-far, far:-far] = self.trigger.stamp(seated[..., far:-far, far:-far], rng=rng)
        return stamped


def pattern_of(kind: Pattern, side: int, rng: torch.Generator) -> torch.Tensor:
    """A patch, (3, side, side): black and white by turns, noise, or stripes of a pixel; `rng` draws the noise."""
    steps = torch.arange(side)
    if kind == "checker":
        return ((steps[:, None] + steps) % 2).float().expand(3, -1, -1).clone()
    if kind == "stripes":
        return (steps % 2).float().expand(3, side, -1).clone()
    if kind == "noise":
        return torch.rand((3, side, side), generator=rng)
    raise DataError(f"expected a pattern among checker, noise, stripes, got {kind!r}")


class Pixels(torch.nn.Module):
    """A patch that is learned: raw numbers without bounds behind a sigmoid, starting at a pale pattern."""

    def __init__(self, pattern: torch.Tensor) -> None:
        super().__init__()
        self.raw = torch.nn.Parameter(torch.logit(pattern.clamp(0.25, 0.75)))

    def __repr__(self) -> str:
        return f"Pixels({tuple(self.raw.shape)})"

    def pattern(self) -> torch.Tensor:
        """The pixels as they are now, in [0, 1]; gradients reach them."""
        return self.raw.sigmoid()
