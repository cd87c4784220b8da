"""Trains a victim's head on a frozen tower's maps, which are computed once, or head and tower together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from firmground.data.pairs import as_float
from firmground.errors import ModelError
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from firmground.studies.victims.lessons import Lessons
    from firmground.studies.victims.towers import Maps, Tower
    from firmground.types import Images

RISING = 0.1  # share of the steps over which step sizes rise


class Learner(Protocol):
    """A victim under training: a torch module with a tower and a loss."""

    tower: Tower

    def look(self, images: Images, targets: Mapping[str, torch.Tensor] | None = None) -> Maps: ...

    def loss(self, maps: Maps, targets: Mapping[str, torch.Tensor], rng: torch.Generator) -> torch.Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Fit:
    """AdamW with warm-up and a cosine; a tower that is tuned takes smaller steps than its head."""

    epochs: int = 5
    batch_size: int = 16
    step_size: float = 3e-3
    tower_step_size: float = 5e-4
    weight_decay: float = 0.02
    clip: float = 1.0

    def train(
        self,
        victim: Learner,
        lessons: Lessons,
        *,
        maps: Maps | None,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> float:
        """Trains in place and returns the loss over the last epoch. With `maps`, the tower's, the tower is frozen."""
        module = victim
        assert isinstance(module, torch.nn.Module)
        victim.tower.requires_grad_(maps is None)
        optimizer, sizes = self._optimizer(module, victim.tower)
        per_epoch = max(1, len(lessons) // self.batch_size)
        total, recent = per_epoch * self.epochs, 0.0
        for epoch in range(self.epochs):
            order, recent = torch.randperm(len(lessons), generator=rng), 0.0
            for place in range(per_epoch):
                rows, step = order[place * self.batch_size :][: self.batch_size], epoch * per_epoch + place
                for group, size in zip(optimizer.param_groups, sizes, strict=True):
                    group["lr"] = size * pace(step, total)
                targets = {name: value[rows] for name, value in lessons.targets.items()}
                if maps is None:
                    seen = victim.look(as_float(lessons.images[rows]), targets)
                else:
                    seen = tuple(one[rows].float() for one in maps)
                loss = victim.loss(seen, targets, rng)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(module.parameters(), self.clip)
                optimizer.step()
                recent += float(loss.detach()) / per_epoch
                watch(step + 1, total, "fitting", loss=float(loss.detach()))
            if not math.isfinite(recent):
                raise ModelError(f"the training diverged in epoch {epoch}; try a smaller step_size")
        module.eval().requires_grad_(False)
        return recent

    def _optimizer(self, module: torch.nn.Module, tower: Tower) -> tuple[torch.optim.Optimizer, list[float]]:
        below = {id(value) for value in tower.parameters()}
        head = [value for value in module.parameters() if value.requires_grad and id(value) not in below]
        tuned = [value for value in tower.parameters() if value.requires_grad]
        groups = [(head, self.step_size)] + ([(tuned, self.tower_step_size)] if tuned else [])
        optimizer = torch.optim.AdamW(
            [{"params": values, "lr": size} for values, size in groups], weight_decay=self.weight_decay
        )
        return optimizer, [size for _, size in groups]


def pace(step: int, total: int) -> float:
    """The share of the largest step size at a step: up in a line, down by a cosine."""
    rising = max(1.0, RISING * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))


@torch.no_grad()
def cached(victim: Learner, lessons: Lessons, *, batch_size: int = 64) -> Maps:
    """What a victim with a frozen tower sees of all images, in half precision."""
    parts = []
    for start in range(0, len(lessons), batch_size):
        rows = slice(start, start + batch_size)
        targets = {name: value[rows] for name, value in lessons.targets.items()}
        parts.append([one.half() for one in victim.look(as_float(lessons.images[rows]), targets)])
    return tuple(torch.cat(own) for own in zip(*parts, strict=True))
