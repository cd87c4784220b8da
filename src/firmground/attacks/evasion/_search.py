"""The one loop of all evasions: batches, the steps of an optimiser, the projection, the rounding to 8 bits."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import torch

from firmground.attacks.evasion.perturbed import Perturbed, distances, rounded
from firmground.bounds import FROM_0, check_bounds
from firmground.errors import DataError
from firmground.models.preprocessing import check_images
from firmground.models.surrogates import surrogates_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firmground.models.surrogates import Encoders, Surrogate
    from firmground.types import Images, Watch

LEVEL = 1 / 255


class Objective(Protocol):
    """What an attack makes small: one number an image, (batch,)."""

    def __call__(self, images: Images) -> torch.Tensor: ...


class Begin(Protocol):
    """Makes the objective of one batch from a surrogate, the clean images, and as many that they shall resemble.

    Those are the clean images again where an attack aims at none. It runs without gradients and may keep features.
    """

    def __call__(self, surrogate: Surrogate, clean: Images, target: Images) -> Objective: ...


@dataclass(frozen=True, kw_only=True)
class Search:
    """What all evasions set: how far each pixel may go (`epsilon`, of [0, 1]), and how the change is searched.

    `optimizer` takes signs of the gradient, of its running sum (momentum), of that a step ahead (nesterov), or Adam's
    steps, of `step_size` each.
    """

    epsilon: float = 8 / 255
    steps: int = 100
    step_size: float = 1 / 255
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "sign"
    momentum: float = 1.0
    random_start: bool = True
    batch_size: int = 32

    name: ClassVar[str]

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= 1:
            raise DataError(f"expected an epsilon above 0 and at most 1, in units of [0, 1] pixels, got {self.epsilon}")
        if self.epsilon < LEVEL * (1 - 1e-6):
            raise DataError(f"an epsilon of {self.epsilon} is lost when images are saved; give at least 1/255, 0.00393")
        check_bounds(self, momentum=FROM_0)
        if self.steps < 1 or self.batch_size < 1 or not 0 < self.step_size <= 1:
            raise DataError(
                "expected one step or more, a step_size above 0 and at most 1, a batch of one or more, got "
                f"{self.steps}, {self.step_size} and {self.batch_size}"
            )


def run(
    how: Search,
    encoders: Encoders,
    images: Images,
    begin: Begin,
    *,
    rng: torch.Generator,
    watch: Watch,
    target: Images | None = None,
    draws: int = 1,
    shape: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Perturbed:
    """Perturbs images, (batch, 3, height, width) in [0, 1], so that an objective falls; on several encoders, its mean.

    `target` are as many images. A step takes the mean gradient of so many `draws` of an objective that is random;
    `shape` changes the gradient. Raises `DataError` for what are no images in [0, 1].
    """
    check_images(images)
    towers, began = surrogates_of(encoders), time.perf_counter()
    device, parts = towers[0].device, images.detach().split(how.batch_size)
    goals = (images if target is None else target).detach().split(how.batch_size)
    found, total = [], len(parts) * how.steps
    for done, (part, goal) in enumerate(zip(parts, goals, strict=True)):
        clean = part.to(device=device, dtype=torch.float32).clamp(0, 1)
        with torch.no_grad():
            objective = mean_of([begin(tower, clean, goal.to(clean)) for tower in towers])

        def told(step: int, loss: float, before: int = done * how.steps) -> None:
            watch(before + step, total, how.name, loss=loss)

        found.append(searched(how, clean, objective, rng, told, draws, shape))
    weights = [len(part) for part in parts]
    curves = torch.stack([one.curve for one in found]) * torch.tensor(weights).view(-1, 1)
    return Perturbed(
        method=how.name,
        images=torch.cat([one.images for one in found]).to(images),
        distance=tuple(value for one in found for value in one.distance),
        before=joined([one.before for one in found]),
        after=joined([one.after for one in found]),
        losses=tuple((curves.sum(dim=0) / sum(weights)).tolist()),
        doubts=doubts(torch.cat([one.moved for one in found])),
        seconds=time.perf_counter() - began,
        settings=asdict(how),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """One batch's result; all but `images` and the `curve`, (steps,), has one number an image."""

    images: Images
    distance: tuple[float, ...]
    before: torch.Tensor
    after: torch.Tensor
    curve: torch.Tensor
    moved: torch.Tensor


def searched(
    how: Search,
    clean: Images,
    objective: Objective,
    rng: torch.Generator,
    told: Callable[[int, float], None],
    draws: int,
    shape: Callable[[torch.Tensor], torch.Tensor] | None,
) -> Found:
    """The change of one batch. The projection is outside of what is differentiated: no gradient is lost to it."""
    before = judged(objective, clean, draws)
    delta, optimizer = begun(how, clean, rng), Optimizer(how, clean)
    moved = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
    curve = []
    for step in range(how.steps):
        losses, gradient = slope(objective, clean, optimizer.ahead(delta), draws)
        if not moved.all():
            moved |= gradient.flatten(1).any(dim=1)
        delta = projected(optimizer.step(delta, gradient if shape is None else shape(gradient)), clean, how.epsilon)
        curve.append(losses.mean().cpu())
        told(step + 1, float(curve[-1]))
    images = rounded(clean + delta, clean, how.epsilon)
    return Found(
        images=images,
        distance=distances(images, clean, how.epsilon),
        before=before,
        after=judged(objective, images, draws),
        curve=torch.stack(curve).float(),
        moved=moved,
    )


@torch.no_grad()
def judged(objective: Objective, images: Images, draws: int) -> torch.Tensor:
    """The objective, (batch,), the mean of so many draws."""
    return torch.stack([objective(images) for _ in range(draws)]).mean(dim=0)


def slope(objective: Objective, clean: Images, delta: torch.Tensor, draws: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The objective, (batch,), and its gradient at a change, both the mean of so many draws, one after the other."""
    leaf, losses, gradients = delta.requires_grad_(), [], []
    for _ in range(draws):
        with torch.enable_grad():
            found = objective(clean + leaf)
            (gradient,) = torch.autograd.grad(found.sum(), [leaf])
        losses.append(found.detach())
        gradients.append(gradient)
    if draws == 1:
        return losses[0], gradients[0]
    return torch.stack(losses).mean(dim=0), torch.stack(gradients).mean(dim=0)


def begun(how: Search, clean: Images, rng: torch.Generator) -> torch.Tensor:
    """Where the search starts: anywhere in the ball, or at the image itself."""
    if not how.random_start:
        return torch.zeros_like(clean)
    noise = torch.rand(clean.shape, generator=rng, device=rng.device).to(clean)
    return projected((2 * noise - 1) * how.epsilon, clean, how.epsilon)


def projected(delta: torch.Tensor, clean: Images, epsilon: float) -> torch.Tensor:
    """The nearest change that stays within epsilon and leaves pixels in [0, 1]."""
    return (clean + delta.clamp(-epsilon, epsilon)).clamp_(0, 1).sub_(clean)


class Optimizer:
    """Steps downhill. Adam goes without AdamW's decay of the change itself: the projection bounds it."""

    def __init__(self, how: Search, clean: Images) -> None:
        self.how, self.mean = how, torch.zeros_like(clean)
        self.leaf = torch.zeros_like(clean).requires_grad_()
        self.adam = torch.optim.Adam([self.leaf], lr=how.step_size, fused=True) if how.optimizer == "adam" else None

    def ahead(self, delta: torch.Tensor) -> torch.Tensor:
        """Where the gradient is taken: here, or where Nesterov's momentum will lead, but no further than epsilon."""
        how = self.how
        if how.optimizer == "nesterov":
            return (delta - how.step_size * how.momentum * self.mean).clamp(-how.epsilon, how.epsilon).detach()
        return delta.detach()

    @torch.no_grad()
    def step(self, delta: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The change after one step, before its projection."""
        how = self.how
        if how.optimizer == "sign":
            return delta - how.step_size * gradient.sign()
        if self.adam is not None:
            self.leaf.copy_(delta)
            self.leaf.grad = gradient.contiguous()
            self.adam.step()
            return self.leaf.detach()
        size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
        self.mean = how.momentum * self.mean + gradient / size
        return delta - how.step_size * self.mean.sign()


def mean_of(objectives: Sequence[Objective]) -> Objective:
    """The mean of the objectives of several encoders."""
    if len(objectives) == 1:
        return objectives[0]

    def mean(images: Images) -> torch.Tensor:
        return torch.stack([one(images) for one in objectives]).mean(dim=0)

    return mean


def joined(parts: Sequence[torch.Tensor]) -> tuple[float, ...]:
    """One number an image over all batches."""
    return tuple(float(value) for value in torch.cat([part.float() for part in parts]).tolist())


def doubts(moved: torch.Tensor) -> tuple[str, ...]:
    """Why the result may not be what the method can do."""
    still = int((~moved).sum())
    if not still:
        return ()
    return (f"the gradient was zero at every step on {still} of {len(moved)} images; start at random, or use float32",)
