"""Attackers of a study of defences: they know the labels, the weights, and whatever stands before the encoder.

Projected gradient descent (Madry et al., ICLR 2018) on two losses, of which one may do where the other does not: the
cross-entropy, and the margin (Carlini and Wagner, S&P 2017). Where the defence is random, gradients are averaged over
its draws (EOT, Athalye et al., ICML 2018); where it has none, they pass around it (BPDA, the same paper). Results are
rounded to 8 bits. An image counts as right only where it survives both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from firmground.attacks.evasion.perturbed import rounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.types import Images

LOSSES: tuple[Literal["cross-entropy", "margin"], ...] = ("cross-entropy", "margin")
BATCH = 100


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """The search: `steps` from a random start, each `step_share` of epsilon, `draws` of a random defence a step."""

    epsilon: float
    steps: int = 20
    step_share: float = 0.125
    draws: int = 1

    def perturb(
        self,
        logits: Callable[[Images], torch.Tensor],
        images: Images,
        labels: torch.Tensor,
        loss: Literal["cross-entropy", "margin"],
        *,
        rng: torch.Generator,
        toll: Callable[[Images], torch.Tensor] | None = None,
    ) -> Images:
        """Images within epsilon, multiples of 1/255, that `logits`, (batch, classes), takes for something else.

        `toll`, (batch,), is what else the attacker pays for, such as a guard's score.
        """
        return torch.cat(
            [
                self._part(logits, part, own, loss, rng, toll)
                for part, own in zip(images.split(BATCH), labels.split(BATCH), strict=True)
            ]
        )

    def _part(
        self,
        logits: Callable[[Images], torch.Tensor],
        clean: Images,
        labels: torch.Tensor,
        loss: str,
        rng: torch.Generator,
        toll: Callable[[Images], torch.Tensor] | None,
    ) -> Images:
        noise = 2 * torch.rand(clean.shape, generator=rng) - 1
        found = (clean + self.epsilon * noise).clamp(0, 1)
        for _ in range(self.steps):
            found.requires_grad_(True)
            gains = [gain(logits(found), labels, loss) for _ in range(self.draws)]
            total = torch.stack(gains).mean(dim=0)
            if toll is not None:
                total = total - toll(found)
            (slope,) = torch.autograd.grad(total.sum(), [found])
            stepped = found.detach() + self.step_share * self.epsilon * slope.sign()
            found = (clean + (stepped - clean).clamp(-self.epsilon, self.epsilon)).clamp(0, 1)
        return rounded(found, clean, self.epsilon)


def gain(logits: torch.Tensor, labels: torch.Tensor, loss: str) -> torch.Tensor:
    """What the attacker makes large, (batch,)."""
    if loss == "cross-entropy":
        return F.cross_entropy(logits, labels, reduction="none")
    right = logits.gather(1, labels[:, None])[:, 0]
    other = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return other - right


def straight_through(change: Callable[[Images], Images]) -> Callable[[Images], Images]:
    """A change of images that gradients pass as if it were not there (BPDA)."""

    def passed(images: Images) -> Images:
        return images + (change(images) - images).detach()

    return passed
