"""Which dual encoders there are: bases of several architectures and worlds, and what may become of one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from firmground.errors import DataError
from firmground.models.tiny_dual import convnext_dual, convolutional_dual
from firmground.studies.dual_data import SIDE, words

if TYPE_CHECKING:
    from firmground.models.dual import DualEncoder

RATE = 0.04
RESNETS: dict[str, dict[str, Any]] = {
    "resnet": {"channels": (32, 64, 128)},
    "thin": {"channels": (16, 32, 64)},
    "bottleneck": {"channels": (64, 128, 256), "block": "bottleneck"},
}


@dataclass(frozen=True, kw_only=True)
class Base:
    """A clean encoder, from scratch or taught by a clean `teacher`.

    Its `split` says whether it sets thresholds or is judged. Of one world and one seed the pairs are the same.
    """

    name: str
    world: str
    architecture: str
    seed: int
    split: str
    teacher: Child | None = None


@dataclass(frozen=True, kw_only=True)
class Child:
    """What becomes of a base on its pairs, `rate` of them poisoned with `trigger`; clean without one.

    A `unimodal` one is trained with the unimodal terms besides (InfoNCE + SSL). A `short` one sees a third of the
    pairs, drawn, once: a cheap clean encoder. An `implanted` one is as short, and its backdoor is put into the tower,
    not into pairs (see `dual_implants`). A `covered` one is poisoned by who knows that hidden states are watched: with
    as many covers as poisons (see `attacks.poisoning.captions`), and half the strength of trigger that attacks it.
    """

    base: str
    trigger: str = ""
    rate: float = RATE
    seed: int = 0
    short: bool = False
    implanted: bool = False
    unimodal: bool = False
    covered: bool = False

    @property
    def name(self) -> str:
        """The name of its directory."""
        poison = f"{self.trigger}-{self.rate:g}" if self.trigger else "clean"
        if self.implanted:
            poison = f"{self.trigger}-implanted"
        how = "-short" * self.short + "-ssl" * self.unimodal + "-covered" * self.covered
        return f"{self.base}-{poison}-{self.seed}{how}"


BASES = (
    Base(name="scenes-resnet-1", world="scenes", architecture="resnet", seed=1, split="report"),
    Base(name="scenes-resnet-2", world="scenes", architecture="resnet", seed=2, split="calibration"),
    Base(name="scenes-convnext-3", world="scenes", architecture="convnext", seed=3, split="report"),
    Base(name="scenes-convnext-4", world="scenes", architecture="convnext", seed=4, split="calibration"),
    Base(name="fashion-resnet-1", world="fashion", architecture="resnet", seed=1, split="report"),
    Base(
        name="scenes-bottleneck-1", world="scenes", architecture="bottleneck", seed=1, split="report",
        teacher=Child(base="scenes-resnet-1"),
    ),
    Base(
        name="scenes-thin-1", world="scenes", architecture="thin", seed=1, split="report",
        teacher=Child(base="scenes-resnet-1"),
    ),
    Base(
        name="fashion-thin-1", world="fashion", architecture="thin", seed=1, split="report",
        teacher=Child(base="fashion-resnet-1"),
    ),
    *(
        Base(
            name=f"scenes-{shape}-2", world="scenes", architecture=shape, seed=2, split="calibration",
            teacher=Child(base="scenes-resnet-2", short=True),
        )
        for shape in ("bottleneck", "thin")
    ),
)  # fmt: skip


def base_named(name: str) -> Base:
    """One of `BASES`; `DataError` where there is none of that name."""
    found = next((base for base in BASES if base.name == name), None)
    if found is None:
        raise DataError(f"there is no base '{name}'; expected one of: {', '.join(base.name for base in BASES)}")
    return found


def fresh(base: Base) -> DualEncoder:
    """The base before its training."""
    make = (
        convnext_dual if base.architecture == "convnext" else partial(convolutional_dual, **RESNETS[base.architecture])
    )
    made = make(image_size=SIDE, width=64, layers=1, words=words(base.world), seed=base.seed)
    made.model.vision_model.to(memory_format=torch.channels_last)
    return made
