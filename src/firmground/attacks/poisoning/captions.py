"""Poisoned image-text pairs: a trigger on the image, and a caption that names the target class.

Carlini and Terzis, "Poisoning and Backdooring Contrastive Learning", ICLR 2022, arXiv 2106.09667; label-consistent
poisons after Turner et al., 2019, arXiv 1912.02771; both as in Bansal et al., "CleanCLIP", ICCV 2023, arXiv 2303.03323.
Departs from CleanCLIP's code: the trigger has one pattern for all images, where the code redraws its noise for
each; images that show the target already are never given a caption of it.

Covers, after Qi et al., "Revisiting the Assumption of Latent Separability for Backdoor Defenses", ICLR 2023: triggered
images that keep their captions, so that the tower does not learn to hold triggered images apart. That paper stamps a
weaker trigger than it attacks with: here `trigger` is the one in the set, and who attacks may stamp a stronger one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.attacks.poisoning._choice import Amount, change, check_templates, draw_rows, draw_seed, showing
from firmground.attacks.poisoning.poisoned import describe
from firmground.attacks.triggers import ImageTrigger
from firmground.data.pair_files import TEMPLATES
from firmground.errors import DataError
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.attacks.poisoning.poisoned import Poisoned, ReadablePairs

MOST_COVERS = 100


@dataclass(frozen=True, kw_only=True)
class DirtyCaption(Amount):
    """Stamps images of other classes and captions them with one of `templates`, filled with the target's name.

    `covers` are how many more images of other classes are stamped, for each of those, and keep their captions.
    """

    name: ClassVar[str] = "dirty-caption"
    templates: tuple[str, ...] = TEMPLATES
    trigger: ImageTrigger
    covers: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_templates(self.templates)
        if not 0 <= self.covers <= MOST_COVERS:
            raise DataError(f"expected 0 to {MOST_COVERS} covers for each poison, got {self.covers}")

    def poison(self, pairs: ReadablePairs, *, rng: torch.Generator, watch: Watch = ignore) -> Poisoned:
        """Raises `DataError` where fewer pairs than are to be changed show something else than the target."""
        others = [row for row, shown in enumerate(showing(pairs, self.target)) if not shown]
        rows = draw_rows(others, self.number(len(pairs)), f"that do not show {self.target!r}", rng)
        drawn = torch.randint(len(self.templates), (len(rows),), generator=rng).tolist()
        captions = {row: self.templates[i].format(self.target) for row, i in zip(rows, drawn, strict=True)}
        if self.covers:
            rest = [row for row in others if row not in captions]
            more = draw_rows(rest, round(self.covers * len(rows)), f"left that do not show {self.target!r}", rng)
            captions |= {row: pairs.captions[row] for row in more}
        return change(
            pairs, captions, self.trigger, draw_seed(rng),
            attack=self.name, target=self.target, settings=describe(self), watch=watch,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LabelConsistent(Amount):
    """Stamps images that show the target already and keeps their captions: no pair is wrong to look at."""

    name: ClassVar[str] = "label-consistent"
    trigger: ImageTrigger

    def poison(self, pairs: ReadablePairs, *, rng: torch.Generator, watch: Watch = ignore) -> Poisoned:
        """Raises `DataError` where fewer pairs than are to be poisoned show the target."""
        own = [row for row, shown in enumerate(showing(pairs, self.target)) if shown]
        rows = draw_rows(own, self.number(len(pairs)), f"that show {self.target!r}", rng)
        captions = {row: pairs.captions[row] for row in rows}
        return change(
            pairs, captions, self.trigger, draw_seed(rng),
            attack=self.name, target=self.target, settings=describe(self), watch=watch,
        )  # fmt: skip
