"""The study `clip_cleaning`: poisoned dual encoders before and after every cleaner, over step sizes.

A case is one point of a curve of CA against ASR: a victim (see `dual_population`), a cleaner, a step size, and a number
of clean pairs, `MANY` or `FEW`, the same ones for all cleaners. They get `EPOCHS` of them; Disarm, which trains one
tower, gets `LONGER`. Neither it nor Restore ever gets the family of coverings that resembles the victim's trigger
(`WITHOUT`): their rows say what they do about triggers that they have not been shown; those of `SHIPPED` what Disarm
does as a user gets it, with all families. What Disarm has cleaned is poisoned again, with a handful of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.defenses.cleaning import PAR, CleanCLIP, ContrastiveFinetune, Disarm, Restore, SupervisedFinetune
from firmground.errors import DataError
from firmground.rng import stream
from firmground.studies.clip_cleaning_report import SHIPPED, report_cleaning
from firmground.studies.clip_hard_cases import (
    CLEANED_CONTROL,
    CONTAMINATED,
    CONTROL,
    POISONS,
    UNIMODAL,
    HardCase,
    clean_child,
    contaminated,
    rebound,
)
from firmground.studies.dual_data import CLEAN, large_test, large_validation
from firmground.studies.dual_population import NOISE, OPTIMISED, Child, base_named, built, judged, sets_of
from firmground.studies.population import population_folder
from firmground.studies.runner import Study

if TYPE_CHECKING:
    from collections.abc import Iterable

    from firmground.data.pairs import PairSet
    from firmground.types import Watch

VICTIMS = ("scenes-resnet-1", "fashion-resnet-1")
CLEANERS = ("disarm", "cleanclip", "contrastive", "restore", "par", "supervised")
SHIPPED_FIRST = ("wanet", OPTIMISED)
HARDEST = (("cleanclip", 1e-2), ("contrastive", 1e-2), ("disarm", 8e-3))  # on victims of InfoNCE + SSL
STEP_SIZES = (3e-3, 1e-3, 1e-2, 3e-4)
MANY, FEW = CLEAN, 3072  # clean pairs that a cleaner gets: a quarter or a twelfth of those that a victim saw
FIRST = (("disarm", 8e-3), ("cleanclip", 3e-3), ("contrastive", 3e-3), ("cleanclip", 1e-2), ("contrastive", 1e-2))
EPOCHS, LONGER, BATCH = 5, 16, 64
FALL = 0.1  # PAR and Restore push at the step size, and recover at this share of it
EARLY = tuple((base, trigger) for base in VICTIMS for trigger in NOISE)
OTHERS = ("stripes", "sig", "text", "triangles", "blended-stripes", "wanet", OPTIMISED)
POISONED = (*EARLY, *((VICTIMS[0], trigger) for trigger in OTHERS))  # base and trigger of each victim
WITHOUT = {
    "badnet": ("noise",), "blended": ("noise",), "badclip": ("noise",), "wanet": ("warp",), "sig": ("waves",),
    "stripes": ("stripes",), "blended-stripes": ("stripes",), "triangles": ("checks",), "text": ("glyphs",),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Case:
    """A victim of `base`, cleaned by `cleaner` at `step_size`; as it is without a cleaner, clean without a trigger."""

    base: str
    trigger: str = ""
    cleaner: str = ""
    step_size: float = 0.0
    pairs: int = FEW
    seed: int = 0


def cases() -> tuple[Case | HardCase, ...]:
    """Victims as they are, and at the points of `FIRST` with `MANY` pairs; hard cases; all step sizes with `FEW`."""
    control = [HardCase(base=base, trigger=trigger, hardship=CONTROL) for base, trigger in POISONED]
    control += [
        HardCase(base=base, trigger="", hardship=CLEANED_CONTROL, cleaner=SHIPPED, step_size=FIRST[0][1])
        for base in VICTIMS
    ]
    unimodal = [
        HardCase(base=VICTIMS[0], trigger=trigger, hardship=UNIMODAL, cleaner=cleaner, step_size=size)
        for (cleaner, size), trigger in product((("", 0.0), *HARDEST), NOISE)
    ]
    hard = [
        HardCase(base=base, trigger=trigger, hardship=CONTAMINATED, cleaner=cleaner, step_size=size)
        for (cleaner, size), (base, trigger) in product(FIRST[:2], POISONED)
    ]
    rest = [(cleaner, size) for size in STEP_SIZES for cleaner in CLEANERS]
    found: list[Case | HardCase] = [
        *_cases(POISONED, [("", 0.0)]),
        *(Case(base=base) for base in VICTIMS),
        *_cases(POISONED, FIRST, MANY),
        *control,
        *_cases([(VICTIMS[0], trigger) for trigger in SHIPPED_FIRST], [(SHIPPED, FIRST[0][1])], MANY),
        *unimodal,
        *hard,
        *_cases(POISONED, [(SHIPPED, FIRST[0][1])], MANY),
        *_cases(POISONED, rest),
    ]
    return tuple(dict.fromkeys(found))


def _cases(victims: Iterable[tuple[str, str]], points: Iterable[tuple[str, float]], pairs: int = FEW) -> list[Case]:
    """All victims at the first point (a cleaner, or none, and its step size), then at the next."""
    return [
        Case(base=base, trigger=trigger, cleaner=cleaner, step_size=size, pairs=pairs)
        for (cleaner, size), (base, trigger) in product(points, victims)
    ]


def cleaner_of(case: Case | HardCase) -> Any:
    """The cleaner of a case with its settings."""
    shared: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH}
    plain = shared | {"step_size": case.step_size, "warm_up": 0.1}
    falling = shared | {"first_step_size": case.step_size, "step_size": FALL * case.step_size, "warm_up": 0.5}
    shipped = case.cleaner == SHIPPED
    match "disarm" if shipped else case.cleaner:
        case "cleanclip":
            return CleanCLIP(**plain)
        case "contrastive":
            return ContrastiveFinetune(**plain)
        case "supervised":
            return SupervisedFinetune(**plain, start="names")
        case "disarm":
            without = () if shipped else WITHOUT.get(case.trigger, ())
            return Disarm(**plain | {"epochs": LONGER}, without=without)
        case "par":
            return PAR(**falling)
        case "restore":
            return Restore(**falling, without=WITHOUT.get(case.trigger, ()))
    raise DataError(f"there is no cleaner '{case.cleaner}'; expected one of: {', '.join(CLEANERS)}")


def run_case(case: Case | HardCase, watch: Watch, *, folder: str) -> dict[str, Any]:
    """CA and ASR, and CA on validation images, to choose a step size by: of the usual sets, and of `large` ones."""
    hardship = getattr(case, "hardship", "")
    if hardship == CONTROL:
        return _control(case, watch, Path(folder))
    if hardship == CLEANED_CONTROL:
        return _cleaned_control(case, watch, Path(folder))
    child = Child(base=case.base, trigger=case.trigger, seed=case.seed, unimodal=hardship == UNIMODAL)
    found = built(Path(folder), child, watch)
    sets, encoder = sets_of(found.world), found.encoder
    facts: dict[str, Any] = {"world": found.world, "victim_seconds": found.manifest["seconds"]}
    if case.cleaner:
        pairs: PairSet = sets.clean.select(range(getattr(case, "pairs", MANY)))
        if hardship == CONTAMINATED and found.trigger is not None:
            pairs = contaminated(sets.clean, found.trigger, found.world, count=POISONS, seed=case.seed)
        rng = stream(case.seed, "clean", case.cleaner)
        cleaned = cleaner_of(case).clean(encoder, pairs, rng=rng, watch=watch)
        encoder = cleaned.encoder
        facts |= {"clean_seconds": round(cleaned.seconds, 1), "steps": cleaned.steps, "losses": cleaned.losses}
    facts["large"] = judged(encoder, large_test(found.world), found.trigger)
    facts["large"]["validation"] = judged(encoder, large_validation(found.world))["accuracy"]
    facts["validation"] = judged(encoder, sets.validation)["accuracy"]
    facts |= judged(encoder, sets.test, found.trigger)
    if case.cleaner == "disarm" and not hardship and found.trigger is not None:
        facts["rebound"] = rebound(encoder, found.trigger, found.world, seed=case.seed, watch=watch)
    return facts


def _control(case: Case | HardCase, watch: Watch, folder: Path) -> dict[str, Any]:
    """A clean encoder under the victim's trigger, as it is and after the handful of poisons that cleaned ones get."""
    clean, world = built(folder, clean_child(case.base), watch).encoder, base_named(case.base).world
    trigger = built(folder, Child(base=case.base, trigger=case.trigger, seed=case.seed), watch).trigger
    if trigger is None:
        raise DataError(f"there is no control without a trigger; case: {case}")
    facts = {"world": world} | judged(clean, sets_of(world).test, trigger)
    return facts | {"rebound": rebound(clean, trigger, world, seed=case.seed, watch=watch)}


def _cleaned_control(case: Case | HardCase, watch: Watch, folder: Path) -> dict[str, Any]:
    """A clean encoder after the cleaning that victims get, under the trigger of each."""
    clean, world = built(folder, clean_child(case.base), watch).encoder, base_named(case.base).world
    pairs = sets_of(world).clean.select(range(MANY))
    cleaned = cleaner_of(case).clean(clean, pairs, rng=stream(case.seed, "clean", case.cleaner), watch=watch).encoder
    facts: dict[str, Any] = {"world": world} | judged(cleaned, sets_of(world).test)
    for trigger in (trigger for base, trigger in POISONED if base == case.base):
        planted = built(folder, Child(base=case.base, trigger=trigger, seed=case.seed), watch).trigger
        facts[f"under {trigger}"] = judged(cleaned, sets_of(world).test, planted)["asr"]
    return facts


def clip_cleaning() -> Study:
    """Every cleaner on every victim, over step sizes."""
    work = partial(run_case, folder=population_folder())
    return Study(name="clip_cleaning", cases=cases(), run_case=work, report=report_cleaning)
