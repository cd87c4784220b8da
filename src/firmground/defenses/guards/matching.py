"""How near an output stands to a predefined vector (PV)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

if TYPE_CHECKING:
    from firmground.defenses.guards.reading import Seen

Match: TypeAlias = Literal["distance", "sign"]
NOWHERE = -1.0  # the score of an input that nothing is compared with


@dataclass(frozen=True, kw_only=True, eq=False)
class Matcher:
    """PVs under one prompt, with what is needed to compare outputs with them.

    `center` and `scale` (width,) are the mean and the standard deviation of clean outputs; `vectors` (count, width)
    are centred and scaled; `reach` (count,) is the mean squared distance of clean outputs to each.

    "distance" (ours): 1 - (squared distance to the PV) / `reach`, so 1 at the PV and 0 where clean texts stand.
    "sign" (LMSanitator, NDSS 2024): the share of coordinates whose sign agrees with the PV's.
    """

    match: Match
    center: torch.Tensor
    scale: torch.Tensor
    vectors: torch.Tensor
    reach: torch.Tensor

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Scores outputs (..., width) against every PV: (..., count)."""
        if self.match == "sign":
            signs = (self.vectors * self.scale + self.center).sign()
            return (1 + states.sign() @ signs.T / states.shape[-1]) / 2
        here = (states - self.center) / self.scale
        squares = here.square().sum(-1, keepdim=True) - 2 * here @ self.vectors.T + self.vectors.square().sum(-1)
        return 1 - squares / self.reach

    def best(self, seen: Seen) -> torch.Tensor:
        """The score of every row of a batch, (batch,): the nearest PV at the nearest position."""
        if not len(self.vectors):
            return torch.full((len(seen.ids),), NOWHERE, device=seen.ids.device)
        scores = self.scores(seen.states).amax(-1)
        return scores.masked_fill(~seen.real, NOWHERE).amax(-1)

    def keep(self, rows: torch.Tensor) -> Matcher:
        """The same with some of the PVs."""
        return Matcher(
            match=self.match,
            center=self.center,
            scale=self.scale,
            vectors=self.vectors[rows],
            reach=self.reach[rows],
        )

    def to(self, device: torch.device) -> Matcher:
        """The same on another device."""
        tensors = {name: getattr(self, name).to(device) for name in ("center", "scale", "vectors", "reach")}
        return Matcher(match=self.match, **tensors)


def build(match: Match, clean: torch.Tensor, vectors: torch.Tensor) -> Matcher:
    """A matcher from clean outputs (samples, width) and raw PVs (count, width)."""
    center, scale = clean.mean(0), clean.std(0)
    scale = scale.clamp_min(0.1 * scale.mean()).clamp_min(1e-6)
    centred = (vectors - center) / scale
    squares = torch.cdist((clean - center) / scale, centred).square() if len(vectors) else clean.new_zeros(1, 0)
    return Matcher(match=match, center=center, scale=scale, vectors=centred, reach=squares.mean(0).clamp_min(1e-6))
