"""What an evasion gives: images that survive being saved with 8 bits a channel, and how far they are from clean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firmground.types import Images

SLACK = 1e-4  # of a level: 8/255 times 255 is not quite 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Perturbed:
    """Perturbed `images`, (batch, 3, height, width) in [0, 1], every value a multiple of 1/255.

    `distance` is the largest change of a pixel of each image, in [0, 1] units, after rounding; `before` and `after` are
    what the attack makes small, of the clean and of the rounded image; `losses` is its mean at every step. `doubts` are
    reasons to think that the attack could do better. `settings` rebuilds the method; `pattern`, (3, height, width), is
    the change of an attack that changes all images alike.
    """

    method: str
    images: Images
    distance: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    losses: tuple[float, ...]
    doubts: tuple[str, ...] = ()
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    pattern: Images | None = None


def distances(images: Images, clean: Images, epsilon: float) -> tuple[float, ...]:
    """The largest change of a pixel of each image; what exceeds epsilon by the rounding of floats alone is epsilon."""
    found = (images - clean).abs().flatten(1).amax(dim=1).tolist()
    return tuple(epsilon if epsilon < one < epsilon + SLACK / 255 else one for one in found)


def rounded(images: Images, clean: Images, epsilon: float) -> Images:
    """Images at the nearest of 256 levels that is still within epsilon of the clean ones; epsilon is at least 1/255."""
    low = ((clean - epsilon) * 255 - SLACK).ceil().clamp_(min=0)
    high = ((clean + epsilon) * 255 + SLACK).floor().clamp_(max=255)
    return (images * 255).round().clamp(low, high) / 255
