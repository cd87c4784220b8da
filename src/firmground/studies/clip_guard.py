"""The study `clip_guard`: guards in front of poisoned dual encoders, on clean and on triggered images.

A guard is fitted on clean validation images alone. It is judged by AUROC between test images as they are and the same
images with the victim's trigger (those of the target class left out), and at its own threshold; and by what share of
clean test images it flags when they were changed a little (`guard_shifts`).

What counts is `HEADLINE`. Its layer, pooling and law were chosen on the six cells of `DESIGN`, on other images than the
study's; when it had its form it met the cells that had judged the guards before, then the `fresh` ones: other shapes of
tower, other ways to the backdoor, and a base (`fashion-thin-1`) that was made for it. Cells of role `control` are clean
encoders that meet a trigger all the same: what a guard flags there is the stamp itself, not a backdoor. They are in no
mean. Cells of role `knowing` are victims of an attacker who knows that hidden states are watched (`Child.covered`);
they have a mean of their own, and so has their role `stronger`, where that attacker stamps half as strong again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.defenses.guards import BDetCLIP, Displacement, Mahalanobis, NeighbourDisagreement
from firmground.intervals import rate
from firmground.rng import stream
from firmground.studies import dual_population
from firmground.studies.calibration import auc
from firmground.studies.clip_guard_report import HEADLINE, KNOWING, STRONGER, report_guard
from firmground.studies.dual_data import TARGETS
from firmground.studies.dual_population import FAINT, NOISE, OPTIMISED, STRONG, TRIGGERS, Child, built, sets_of
from firmground.studies.guard_shifts import SHIFTS
from firmground.studies.population import population_folder
from firmground.studies.runner import Study

if TYPE_CHECKING:
    from firmground.attacks.triggers import ImageTrigger
    from firmground.data.labelled_images import LabelledImages
    from firmground.defenses.guards.fitted_images import FittedImageGuard
    from firmground.types import Watch

SCENES, FASHION = "scenes-resnet-1", "fashion-resnet-1"
DESIGN = (  # base, trigger, implanted
    *((base, trigger, False) for base in (SCENES, FASHION) for trigger in NOISE),
    (SCENES, "text", False),
    (FASHION, "stripes", True),
)
ON_FASHION = ("stripes", "text", "sig", "triangles")  # implanted, known to the guards before
FRESH = {  # implanted
    SCENES: tuple(name for name in TRIGGERS if name != "wanet"),
    "scenes-thin-1": tuple(TRIGGERS),
    "scenes-bottleneck-1": tuple(name for name in TRIGGERS if name != "wanet"),
    "scenes-convnext-3": ("badnet", "sig", "text"),
    FASHION: (*NOISE, "blended-stripes", "wanet"),
    "fashion-thin-1": tuple(TRIGGERS),
}
BATCH, SHIFTED = 250, 300
GUARDS: dict[str, Any] = {
    "bdetclip": BDetCLIP(),
    "bdetclip, small gaps only": BDetCLIP(side="small"),
    "neighbours": NeighbourDisagreement(),
    "neighbours, an earlier layer": NeighbourDisagreement(layer=1),
    "displacement": Displacement(),
    "mahalanobis": Mahalanobis(),
}

FEW = ("displacement", HEADLINE)
ALL_BEFORE = ("design", "held")  # roles of victims that all guards stand before, not the `FEW` alone


@dataclass(frozen=True, kw_only=True)
class Case:
    """A victim, or in a `control` a clean encoder under a trigger; guards stand before it."""

    base: str
    trigger: str
    role: str = "held"  # design, held, fresh, knowing, stronger or control
    seed: int = 0
    implanted: bool = False


def cases() -> tuple[Case, ...]:
    """Victims that judged the guards before, fresh ones by base, controls, victims of attackers who know."""
    known = [(base, trigger, False) for base in (SCENES, FASHION) for trigger in NOISE]
    known += [(FASHION, trigger, True) for trigger in ON_FASHION]
    known += [(SCENES, trigger, False) for trigger in TRIGGERS if trigger not in NOISE]
    held = [
        Case(base=cell[0], trigger=cell[1], implanted=cell[2], role="design" if cell in DESIGN else "held")
        for cell in known
    ]
    fresh = [
        Case(base=base, trigger=trigger, implanted=True, role="fresh")
        for base, triggers in FRESH.items()
        for trigger in triggers
    ]
    fresh.append(Case(base=SCENES, trigger=OPTIMISED, role="fresh"))
    control = [Case(base=base, trigger=trigger, role="control") for base in (SCENES, FASHION) for trigger in TRIGGERS]
    knowing = [Case(base=SCENES, trigger=trigger, role=role) for trigger in FAINT for role in (KNOWING, STRONGER)]
    return *held, *fresh, *control, *knowing


def run_case(case: Case, watch: Watch, *, folder: str) -> dict[str, Any]:
    """What each guard makes of the test images."""
    control = case.role == "control"
    child = Child(
        base=case.base, trigger="" if control else case.trigger, seed=case.seed, implanted=case.implanted,
        covered=case.role in (KNOWING, STRONGER),
    )  # fmt: skip
    found = built(Path(folder), child, watch)
    trigger = STRONG[case.trigger] if case.role == STRONGER else found.trigger or TRIGGERS[case.trigger]
    sets = sets_of(found.world)
    target = sets.test.label_names.index(TARGETS[found.world])
    others = sets.test.select([row for row, label in enumerate(sets.test.labels) if label != target])
    own = control or case.role == STRONGER
    shown = dual_population.judged(found.encoder, sets.test, trigger) if own else found.manifest
    guards = {}
    for name, guard in GUARDS.items():
        if name in FEW or case.role in ALL_BEFORE:
            fitted = guard.fit(found.encoder, sets.validation, rng=stream(case.seed, "guard", name), watch=watch)
            guards[name] = judged(fitted, trigger, others)
            if name in FEW:
                guards[name]["shifted"] = shifted(fitted, others)
    return {"world": found.world, "asr": shown["asr"]["value"], "guards": guards}


def judged(fitted: FittedImageGuard, trigger: ImageTrigger, images: LabelledImages) -> dict[str, Any]:
    """AUROC of triggered against clean images, and the shares of both that are flagged."""
    rng = stream(0, "stamps")
    clean: list[float] = []
    triggered: list[float] = []
    for start in range(0, len(images), BATCH):
        batch = images.batch(start, BATCH)
        clean += fitted.score(batch).values
        triggered += fitted.score(trigger.stamp(batch, rng=rng)).values
    return {
        "auroc": auc(clean, triggered),
        "caught": asdict(rate(value > fitted.threshold for value in triggered)),
        "false": asdict(rate(value > fitted.threshold for value in clean)),
    }


def shifted(fitted: FittedImageGuard, images: LabelledImages) -> dict[str, float]:
    """The share of clean images that is flagged after each of the `SHIFTS`."""
    some = images.batch(0, SHIFTED)
    return {name: sum(fitted.score(change(some)).flagged) / len(some) for name, change in SHIFTS.items()}


def clip_guard() -> Study:
    """Every guard before every victim."""
    work = partial(run_case, folder=population_folder())
    return Study(name="clip_guard", cases=cases(), run_case=work, report=report_guard, version=4)
