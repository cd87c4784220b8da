"""What `firmground scan` runs on a dual encoder: a small pattern for all images, one a class, faint ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from firmground.data.scenes import SceneWorld
from firmground.defenses.scans.class_inversion import ClassInversion
from firmground.defenses.scans.decree import DECREE
from firmground.defenses.scans.gathering import Gathering
from firmground.types import Verdict, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from firmground.models.dual import DualEncoder
    from firmground.types import Images

SCENES = 64


def scan_dual(
    encoder: DualEncoder,
    images: Images | None = None,
    *,
    classes: Sequence[str] | None = None,
    rng: torch.Generator,
    watch: Watch = ignore,
    decree: DECREE | None = None,
    inversion: ClassInversion | None = None,
    gathering: Gathering | None = None,
) -> tuple[Verdict, ...]:
    """Judges a dual encoder: one verdict a method.

    `images` are clean images of the kind the encoder will see, (batch, 3, height, width) in [0, 1]; by default scenes
    drawn here. `classes` are what they may be taken for; by default `class_inversion.CLASSES`.
    """
    decree, inversion = decree or DECREE(), inversion or ClassInversion()
    if classes is not None:
        inversion = replace(inversion, classes=tuple(classes))
    shown = default_images(encoder) if images is None else images
    return (
        decree.scan(encoder, shown, rng=rng, watch=watch),
        inversion.scan(encoder, shown, rng=rng, watch=watch),
        (gathering or Gathering()).scan(encoder, shown, rng=rng, watch=watch),
    )


def default_images(encoder: DualEncoder) -> Images:
    """Scenes at the encoder's size, (64, 3, side, side); the same for every encoder of that size."""
    return SceneWorld(size=max(24, encoder.image_size), objects=(1, 3)).scenes(SCENES, seed=0).images
