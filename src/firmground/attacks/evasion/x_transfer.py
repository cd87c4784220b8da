"""X-Transfer: one perturbation for all images, made on a few of many encoders at a time, which a bandit chooses.

Huang et al., "X-Transfer Attacks: Towards Super Transferable Adversarial Attacks on CLIP", ICML 2025, arXiv
2505.05528: a universal change, `chosen` encoders a step, picked by upper confidence bounds on their loss (those that
the change does not fool yet are chosen more), signed steps of 0.5/255, epsilon 12/255. The loss is the cosine between
the embeddings of clean and perturbed images, made small. Departs from the paper: rewards are running means, so that the
bandit follows what changes, and images are drawn from the given set without its captions.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.attacks.evasion._embedding import similarity
from firmground.attacks.evasion._search import Search, joined
from firmground.attacks.evasion.perturbed import Perturbed, distances, rounded
from firmground.bounds import FROM_0, check_bounds
from firmground.errors import DataError
from firmground.models.preprocessing import check_images
from firmground.models.surrogates import surrogates_of
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.models.surrogates import Encoders, Surrogate
    from firmground.types import Embeddings, Images

MEMORY = 0.9  # of a running mean of rewards


@dataclass(frozen=True, kw_only=True)
class XTransfer(Search):
    """Finds one change of all images. `exploration` weighs how seldom an encoder was chosen."""

    name: ClassVar[str] = "x-transfer"
    paper: ClassVar[str] = "Huang et al., ICML 2025, arXiv 2505.05528"
    epsilon: float = 12 / 255
    steps: int = 300
    step_size: float = 0.5 / 255
    chosen: int = 1
    exploration: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, exploration=FROM_0)

    def perturb(
        self,
        encoder: Encoders,
        images: Images,
        *,
        pattern: Images | None = None,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1], all alike; `pattern` of the result is the change.

        A `pattern`, (3, height, width), that was found before is laid over the images without a search. `losses` are
        means over the encoders chosen at a step. Raises `DataError`.
        """
        check_images(images)
        towers, began = surrogates_of(encoder), time.perf_counter()
        if not 1 <= self.chosen <= len(towers):
            raise DataError(f"expected to choose from 1 to {len(towers)} encoders a step, got {self.chosen}")
        clean = images.detach().to(device=towers[0].device, dtype=torch.float32).clamp(0, 1)
        before = [embedded(tower, clean, self.batch_size) for tower in towers]
        losses: tuple[float, ...] = ()
        if pattern is None:
            pattern, losses = self._pattern(towers, clean, before, rng, watch)
        found = rounded((clean + pattern.to(clean)).clamp(0, 1), clean, self.epsilon)
        cosines = [
            similarity(embedded(tower, found, self.batch_size), own) for tower, own in zip(towers, before, strict=True)
        ]
        return Perturbed(
            method=self.name,
            images=found.to(images),
            distance=distances(found, clean, self.epsilon),
            before=(1.0,) * len(clean),
            after=joined([torch.stack(cosines).mean(dim=0)]),
            losses=losses,
            seconds=time.perf_counter() - began,
            settings=asdict(self),
            pattern=pattern.cpu(),
        )

    def _pattern(
        self,
        towers: tuple[Surrogate, ...],
        clean: Images,
        before: list[Embeddings],
        rng: torch.Generator,
        watch: Watch,
    ) -> tuple[torch.Tensor, tuple[float, ...]]:
        noise = torch.rand(clean.shape[1:], generator=rng, device=rng.device).to(clean)
        pattern, bandit, losses = (2 * noise - 1) * self.epsilon, Bandit(len(towers), self.exploration), []
        for step in range(self.steps):
            rows = torch.randint(len(clean), (min(self.batch_size, len(clean)),), generator=rng).tolist()
            total, told = torch.zeros_like(pattern), []
            for arm in bandit.best(self.chosen):
                leaf = pattern.clone().requires_grad_()
                with torch.enable_grad():
                    alike = similarity(towers[arm].embed(clean[rows] + leaf), before[arm][rows]).mean()
                    (gradient,) = torch.autograd.grad(alike, [leaf])
                total += gradient / gradient.abs().mean().clamp(min=torch.finfo(gradient.dtype).tiny)
                told.append(alike.item())
                bandit.learn(arm, told[-1])
            pattern = (pattern - self.step_size * total.sign()).clamp(-self.epsilon, self.epsilon)
            losses.append(sum(told) / len(told))
            watch(step + 1, self.steps, self.name, loss=losses[-1])
        return pattern, tuple(losses)


class Bandit:
    """Chooses arms by the upper confidence bound on a running mean of their rewards."""

    def __init__(self, arms: int, exploration: float) -> None:
        self.rewards, self.counts, self.exploration = [0.0] * arms, [0] * arms, exploration

    def best(self, count: int) -> list[int]:
        """So many arms, the most promising first; one that was never tried is the most promising."""
        return sorted(range(len(self.counts)), key=lambda arm: -self._bound(arm))[:count]

    def learn(self, arm: int, reward: float) -> None:
        """Takes note of what an arm gave."""
        kept = MEMORY if self.counts[arm] else 0.0
        self.rewards[arm] = kept * self.rewards[arm] + (1 - kept) * reward
        self.counts[arm] += 1

    def _bound(self, arm: int) -> float:
        if not self.counts[arm]:
            return math.inf
        return self.rewards[arm] + self.exploration * math.sqrt(math.log(sum(self.counts)) / self.counts[arm])


@torch.no_grad()
def embedded(tower: Surrogate, images: Images, batch_size: int) -> Embeddings:
    """Unit embeddings of all images, (images, width)."""
    return torch.cat([tower.embed(part) for part in images.split(batch_size)])
