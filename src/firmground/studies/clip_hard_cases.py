"""Hard cases of `clip_cleaning`: victims trained with InfoNCE + SSL, poisons in the cleaning set, poisoning again after
the cleaning, and two controls.

Controls tell how much of an ASR is no backdoor: a trigger covers what an image shows, and a clean encoder, never
poisoned, also takes some of what is left for the target, as it is or after the same cleaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firmground.attacks.poisoning import DirtyCaption
from firmground.defenses.cleaning import ContrastiveFinetune
from firmground.rng import stream
from firmground.studies.dual_data import TARGETS, templates_of
from firmground.studies.dual_population import Child, base_named, judged, sets_of

if TYPE_CHECKING:
    from firmground.attacks.triggers import ImageTrigger
    from firmground.data.pairs import PairSet, TensorPairs
    from firmground.models.dual import DualEncoder
    from firmground.types import Watch

CONTROL, CLEANED_CONTROL = "clean child", "clean child, cleaned alike"
CONTAMINATED, UNIMODAL = "5 poisons", "InfoNCE + SSL"
POISONS = 5  # in the cleaning set
AGAIN, HANDFUL = 1024, 16  # pairs that a cleaned encoder is fine-tuned on, and how many of these are poisoned
REBOUND = ContrastiveFinetune(epochs=1, batch_size=64, step_size=1e-3, warm_up=0.1)


@dataclass(frozen=True, kw_only=True)
class HardCase:
    """As `clip_cleaning.Case`, and what is hard about it: `CONTAMINATED` or `UNIMODAL`, or which control it is.

    `CONTROL` has no cleaner, `CLEANED_CONTROL` no trigger: it is judged under those of all victims of its base.
    """

    base: str
    trigger: str
    hardship: str
    cleaner: str = ""
    step_size: float = 0.0
    seed: int = 0


def clean_child(base: str) -> Child:
    """A child of the base that was trained on clean pairs: the one that other studies have, too."""
    return Child(base=base) if base_named(base).world == "scenes" else Child(base=base, seed=1, short=True)


def contaminated(pairs: TensorPairs, trigger: ImageTrigger, world: str, *, count: int, seed: int) -> PairSet:
    """The pairs, `count` of them stamped and captioned with the world's target."""
    templates = templates_of(world)
    attack = DirtyCaption(target=TARGETS[world], count=count, templates=templates, trigger=trigger)
    return attack.poison(pairs, rng=stream(seed, "contaminated", count)).pairs


def rebound(encoder: DualEncoder, trigger: ImageTrigger, world: str, *, seed: int, watch: Watch) -> dict[str, Any]:
    """CA and ASR after one epoch of contrastive fine-tuning on pairs of which a handful is poisoned."""
    sets = sets_of(world)
    pairs = contaminated(sets.clean.select(range(AGAIN)), trigger, world, count=HANDFUL, seed=seed)
    again = REBOUND.clean(encoder, pairs, rng=stream(seed, "rebound"), watch=watch)
    return judged(again.encoder, sets.test, trigger)
