"""Augmentation policies on batches in [0, 1]: every image draws its own operations, from a generator that comes in.

AutoAugment's policy for ImageNet (Cubuk et al., CVPR 2019, arXiv 1805.09501), TrivialAugment (Mueller and Hutter, ICCV
2021, arXiv 2103.10158) and RandAugment (Cubuk et al., 2020, arXiv 1909.13719: two operations). Departs from the
papers: all use AutoAugment's ranges, and magnitudes of TrivialAugment are not rounded to 31 steps. kornia 0.9 has the
policies too, but draws one path for a whole batch and takes no generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import torch

from firmground.errors import DataError
from firmground.models import image_operations as ops

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.types import Images

Augmentation: TypeAlias = Literal["none", "auto", "trivial", "random"]
OPERATIONS: tuple[tuple[str, Callable[[Images, torch.Tensor], Images]], ...] = (
    ("shear_x", ops.shear_x), ("shear_y", ops.shear_y), ("translate_x", ops.translate_x),
    ("translate_y", ops.translate_y), ("rotate", ops.rotate), ("brightness", ops.brightness), ("colour", ops.colour),
    ("contrast", ops.contrast), ("sharpness", ops.sharpness), ("posterize", ops.posterize), ("solarize", ops.solarize),
    ("autocontrast", ops.autocontrast), ("equalize", ops.equalize), ("invert", ops.invert),
)  # fmt: skip
RANDOM_LEVEL = 0.3  # RandAugment: 9 of 30
BRIGHTER = ("brightness", "colour", "contrast", "sharpness")
FURTHEST = {"shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331, "rotate": 30.0}
# twice an operation, its probability, and its level of nine
IMAGENET = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)), (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)), (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)), (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)), (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)), (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("colour", 0.4, 0)), (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)), (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("colour", 0.6, 4), ("contrast", 1.0, 8)), (("rotate", 0.8, 8), ("colour", 1.0, 2)),
    (("colour", 0.8, 8), ("solarize", 0.8, 7)), (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)), (("colour", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)), (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)), (("colour", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One operation for each image: its number in `OPERATIONS`, level in [0, 1] and sign, and whether it is done."""

    number: torch.Tensor
    level: torch.Tensor
    sign: torch.Tensor
    done: torch.Tensor


def augment(images: Images, kind: Augmentation, *, rng: torch.Generator) -> Images:
    """Copies of images, (batch, 3, height, width) in [0, 1], each augmented in its own way; no gradient passes."""
    if kind not in get_args(Augmentation):
        raise DataError(f"expected an augmentation among {', '.join(get_args(Augmentation))}, got {kind!r}")
    changed = images.detach()
    for plan in plans(len(images), kind, rng):
        changed = apply(changed, plan)
    return changed.clone() if changed is images else changed


def plans(count: int, kind: Augmentation, rng: torch.Generator) -> list[Plan]:
    """What is done to each of `count` images, one operation after the other."""
    if kind == "none":
        return []
    if kind == "auto":
        return _auto_plans(count, rng)
    if kind == "trivial":
        return [_plan(_numbers(count, rng), torch.rand(count, generator=rng), rng)]
    return [_plan(_numbers(count, rng), torch.full((count,), RANDOM_LEVEL), rng) for _ in range(2)]


def apply(images: Images, plan: Plan) -> Images:
    """The images after one operation each."""
    changed = images.clone()
    for number in plan.number[plan.done].unique().tolist():
        rows = ((plan.number == number) & plan.done).nonzero()[:, 0]
        name, operation = OPERATIONS[number]
        size = magnitude(name, plan.level[rows], plan.sign[rows]).to(images)
        changed[rows.to(images.device)] = operation(images[rows.to(images.device)], size)
    return changed


def magnitude(name: str, level: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """A level in [0, 1] in the operation's own unit; at 0 the geometric operations and the enhancements do nothing."""
    if name in FURTHEST:
        return sign * level * FURTHEST[name]
    if name in BRIGHTER:
        return 1 + 0.9 * sign * level
    return 8 - (4 * level).round() if name == "posterize" else 1 - level


def _auto_plans(count: int, rng: torch.Generator) -> list[Plan]:
    names = [name for name, _ in OPERATIONS]
    chosen = torch.randint(len(IMAGENET), (count,), generator=rng).tolist()
    found = []
    for stage in range(2):
        steps = [IMAGENET[i][stage] for i in chosen]
        number = torch.tensor([names.index(name) for name, _, _ in steps], dtype=torch.long)
        chances = torch.tensor([chance for _, chance, _ in steps])
        plan = _plan(number, torch.tensor([level / 9 for _, _, level in steps]), rng)
        done = torch.rand(count, generator=rng) < chances
        found.append(Plan(number=plan.number, level=plan.level, sign=plan.sign, done=done))
    return found


def _plan(number: torch.Tensor, level: torch.Tensor, rng: torch.Generator) -> Plan:
    sign = torch.randint(2, number.shape, generator=rng) * 2.0 - 1
    return Plan(number=number, level=level, sign=sign, done=torch.ones_like(number, dtype=torch.bool))


def _numbers(count: int, rng: torch.Generator) -> torch.Tensor:
    return torch.randint(len(OPERATIONS), (count,), generator=rng)
