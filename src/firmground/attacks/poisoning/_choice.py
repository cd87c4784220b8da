"""What poisonings share: how many pairs, which of them, and the manifest of what became of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from firmground.attacks.poisoning.poisoned import Edit, Poisoned, PoisonedPairs, describe_changes, manifest_of
from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from firmground.attacks.poisoning.poisoned import ReadablePairs
    from firmground.attacks.triggers import ImageTrigger
    from firmground.types import Watch


@dataclass(frozen=True, kw_only=True)
class Amount:
    """What all poisonings set: the target's name, and how many pairs, as `count` or as a `rate` of the whole set."""

    target: str
    count: int | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if not self.target.strip():
            raise DataError("expected the name of a target class, got an empty one")
        if (self.count is None) == (self.rate is None):
            raise DataError(f"expected either a count or a rate of poisons, got count={self.count}, rate={self.rate}")
        if self.count is not None and self.count < 1:
            raise DataError(f"expected a count of at least one poison, got {self.count}")
        if self.rate is not None and not 0 < self.rate <= 1:
            raise DataError(f"expected a rate above 0 and at most 1, got {self.rate}")

    def number(self, pairs: int) -> int:
        """How many of so many pairs are poisoned, at least one."""
        return self.count if self.count is not None else max(1, round((self.rate or 0) * pairs))


def check_templates(templates: Sequence[str]) -> None:
    """Raises `DataError` for no template, or one without a place for the name."""
    if not templates or any("{}" not in template for template in templates):
        raise DataError(f"each template needs a {{}} for the target's name, got {list(templates)}")


def showing(pairs: ReadablePairs, target: str) -> tuple[bool, ...]:
    """Which rows show the target: by their labels, where a label has its name, else by the word in their captions."""
    if pairs.labels is not None and target in pairs.label_names:
        wanted = pairs.label_names.index(target)
        return tuple(label == wanted for label in pairs.labels)
    word = re.compile(rf"(?<!\w){re.escape(target)}(?!\w)", re.IGNORECASE)
    return tuple(word.search(caption) is not None for caption in pairs.captions)


def draw_rows(candidates: Sequence[int], number: int, what: str, rng: torch.Generator) -> tuple[int, ...]:
    """So many of the candidates, in order. Raises `DataError` where there are too few."""
    if number > len(candidates):
        raise DataError(
            f"there are {len(candidates)} pairs {what}, fewer than the {number} to be poisoned; lower the count or rate"
        )
    picked = torch.randperm(len(candidates), generator=rng)[:number].tolist()
    return tuple(sorted(candidates[i] for i in picked))


def draw_seed(rng: torch.Generator) -> int:
    """A number that a set keeps to draw its triggers' places from."""
    return int(torch.randint(2**62, (), generator=rng))


def change(
    pairs: ReadablePairs,
    captions: Mapping[int, str],
    trigger: ImageTrigger,
    seed: int,
    *,
    attack: str,
    target: str,
    settings: dict[str, Any],
    watch: Watch,
) -> Poisoned:
    """The poisoned set and its manifest; reads every changed image once, for its hashes."""
    edits = {row: Edit(caption=caption, number=row) for row, caption in sorted(captions.items())}
    poisoned = PoisonedPairs(clean=pairs, edits=edits, trigger=trigger, seed=seed)
    manifest = manifest_of(poisoned, attack, target, settings)
    for done, row in enumerate(edits, 1):
        manifest["changed"].append(describe_changes(poisoned, row))
        watch(done, len(edits), "poison")
    return Poisoned(pairs=poisoned, rows=tuple(edits), trigger=trigger, target=target, attack=attack, manifest=manifest)
