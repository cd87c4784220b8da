"""Searches for small patterns that, put on any image, lead a model where an objective asks: all in one batch.

A candidate is a mask m, one number a pixel, and a pattern p; an image x becomes (1 - m) x + m p. Every candidate
minimises

    loss of its embeddings + sparsity * mean of m

by Adam, with a `sparsity` of its own: it is raised where the aim has been reached for `patience` steps running, and
lowered where it has been missed as long (Neural Cleanse, Wang et al., S&P 2019; the numbers are DECREE's). What counts
is the smallest mask that reaches the aim on all images of the search, and the goal on images it has not seen.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from firmground.data.encoding import png
from firmground.errors import DataError
from firmground.models.preprocessing import check_images

if TYPE_CHECKING:
    from firmground.types import Embeddings, Images, Watch

FEWEST = 16  # images: half for the search, half to check it on
PATIENCE, FACTOR = 5, 5.0  # as the code of DECREE's authors has them
START = 1.0  # of the masks' logits: nearly three quarters of every pixel, for what fires must be seen to be kept
CONTRAST = 2.0  # of the first patterns' logits: near black and white
SCALES = (1, 2, 4)  # in pixels, the grain of the first patterns, in turn: a filter answers only to noise of its grain


class Model(Protocol):
    """What is searched: a dual encoder, or anything that reads square images as one does."""

    @property
    def image_size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def embed_images(self, images: Images) -> torch.Tensor:
        """Embeddings or logits, (batch, width), of images in [0, 1]; differentiable."""


class Objective(Protocol):
    """Where the embeddings of stamped images are to go."""

    def __call__(self, embeddings: Embeddings, rows: torch.Tensor) -> Aim:
        """Judges (candidates, images, width), of the given rows of the images."""


UNMEASURED = "the threshold was not yet measured on a population of trained dual encoders"  # a doubt of every verdict


@dataclass(frozen=True, kw_only=True, eq=False)
class Aim:
    """By candidate: `loss`, to be small, and how far the aim is `reached`, to be near 1; both (candidates,)."""

    loss: torch.Tensor
    reached: torch.Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Patterns:
    """What was found: `masks` (candidates, 1, side, side) and `patterns` (candidates, 3, side, side), in [0, 1]."""

    masks: torch.Tensor
    patterns: torch.Tensor

    @property
    def areas(self) -> torch.Tensor:
        """The mean of each mask, (candidates,): the share of an image that is covered; PL1 of DECREE."""
        return self.masks.mean(dim=(1, 2, 3))

    def joined(self, other: Patterns) -> Patterns:
        """These, then the others."""
        return Patterns(masks=torch.cat([self.masks, other.masks]), patterns=torch.cat([self.patterns, other.patterns]))

    def stamp(self, images: Images) -> torch.Tensor:
        """Images (count, 3, side, side) under every candidate, (candidates, count, 3, side, side)."""
        return images + self.masks[:, None] * (self.patterns[:, None] - images)

    def embed(self, encoder: Model, images: Images) -> Embeddings:
        """Embeddings (candidates, count, width) of the stamped images."""
        stamped = self.stamp(images)
        embedded = encoder.embed_images(stamped.flatten(0, 1)).float()
        return embedded.view(*stamped.shape[:2], embedded.shape[-1])

    def png(self, candidate: int) -> str:
        """The pattern as an RGBA picture, its opacity the mask; base64."""
        pixels = torch.cat([self.patterns[candidate], self.masks[candidate]])
        return base64.b64encode(png(pixels)).decode("ascii")


@dataclass(frozen=True, kw_only=True, eq=False)
class Halves:
    """Clean images at the encoder's size: half of them, drawn, for the search, the rest to check what it finds."""

    search: Images
    check: Images


def halves(encoder: Model, images: Images, rng: torch.Generator) -> Halves:
    """Splits images of any size, in whatever order their classes come. Raises `DataError` for fewer than `FEWEST`."""
    check_images(images)
    if len(images) < FEWEST:
        raise DataError(f"a scan needs at least {FEWEST} clean images, got {len(images)}; give more, of many kinds")
    side = encoder.image_size
    small = images.to(encoder.device).float()
    if small.shape[-2:] != (side, side):
        small = torch.nn.functional.interpolate(
            small, size=(side, side), mode="bilinear", antialias=True, align_corners=False
        )
    order = torch.randperm(len(small), generator=rng).to(small.device)
    shuffled = small[order].clamp(0, 1)
    return Halves(search=shuffled[: len(small) // 2], check=shuffled[len(small) // 2 :])


def search_patterns(
    encoder: Model,
    images: Images,
    objective: Objective,
    *,
    sparsity: torch.Tensor,
    restarts: int,
    aim: float,
    steps: int,
    step_size: float,
    batch_size: int,
    rng: torch.Generator,
    watch: Watch,
    stage: str,
) -> Patterns:
    """The smallest mask of each candidate that reaches `aim`, or where none does, a mask of everything.

    `sparsity`, (candidates,), is where each begins. Candidate c starts from the pattern number c % `restarts`.
    """
    count, side = len(sparsity), images.shape[-1]
    noise = grains(side, restarts, rng).to(images.device)
    colours = noise.repeat(count // restarts, 1, 1, 1).requires_grad_()
    opacity = torch.full((count, 1, side, side), START, device=images.device).requires_grad_()
    optimizer = torch.optim.Adam([colours, opacity], lr=step_size, betas=(0.5, 0.9))
    best = Patterns(masks=torch.ones_like(opacity).detach(), patterns=torch.full_like(colours, 0.5).detach())
    pressure = _Pressure(sparsity.to(images.device))
    for step in range(steps):
        drawn = torch.randperm(len(images), generator=rng)[:batch_size].to(images.device)
        now = Patterns(masks=opacity.sigmoid(), patterns=colours.sigmoid())
        judged = objective(now.embed(encoder, images[drawn]), drawn)
        areas = now.areas
        optimizer.zero_grad()
        (judged.loss + pressure.sparsity * areas).sum().backward()
        if (step + 1) % PATIENCE == 0 or step + 1 == steps:
            best = _better(best, now, _reached_by_all(encoder, images, now, objective) >= aim)
        optimizer.step()
        pressure.adapt(judged.reached.detach() >= aim)
        watch(step + 1, steps, stage, smallest=float(best.areas.min()))
    return best


def grains(side: int, count: int, rng: torch.Generator) -> torch.Tensor:
    """Logits of `count` grey patterns, of the grains of `SCALES` in turn, (count, 3, side, side)."""
    return torch.cat([grain(side, SCALES[number % len(SCALES)], rng) for number in range(count)])


def grain(side: int, size: int, rng: torch.Generator) -> torch.Tensor:
    """Logits of a grey pattern of squares of `size` pixels, with a little colour, (1, 3, side, side)."""
    small = -(-side // size)
    grey = torch.randn(1, 1, small, small, generator=rng).sign() * CONTRAST
    coarse = (grey + 0.5 * torch.randn(1, 3, small, small, generator=rng)).repeat_interleave(size, dim=2)
    return coarse.repeat_interleave(size, dim=3)[..., :side, :side]


@torch.no_grad()
def _reached_by_all(encoder: Model, images: Images, now: Patterns, objective: Objective) -> torch.Tensor:
    """How far the aim is reached on all images: the smallest mask of many batches would be that of a lucky batch."""
    embedded = [
        Patterns(masks=mask[None], patterns=pattern[None]).embed(encoder, images)
        for mask, pattern in zip(now.masks, now.patterns, strict=True)
    ]
    return objective(torch.cat(embedded), torch.arange(len(images), device=images.device)).reached


def _better(best: Patterns, now: Patterns, reached: torch.Tensor) -> Patterns:
    won = (reached & (now.areas < best.areas)).view(-1, 1, 1, 1)
    return Patterns(
        masks=torch.where(won, now.masks, best.masks).detach(),
        patterns=torch.where(won, now.patterns, best.patterns).detach(),
    )


class _Pressure:
    """The sparsity of every candidate, (candidates,), and for how many steps each has reached or missed its aim."""

    def __init__(self, sparsity: torch.Tensor) -> None:
        self.sparsity = sparsity.clone()
        self.hits = torch.zeros_like(sparsity)
        self.misses = torch.zeros_like(sparsity)

    def adapt(self, reached: torch.Tensor) -> None:
        """Takes whether each candidate has reached its aim, (candidates,), bool."""
        self.hits = torch.where(reached, self.hits + 1, 0.0)
        self.misses = torch.where(reached, 0.0, self.misses + 1)
        up, down = self.hits >= PATIENCE, self.misses >= PATIENCE
        self.sparsity = torch.where(
            up, self.sparsity * FACTOR, torch.where(down, self.sparsity / FACTOR, self.sparsity)
        )
        self.hits[up] = 0.0
        self.misses[down] = 0.0
