"""The cases of the study `transfer`: which attacks run at which epsilon, and what ablations change of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from firmground.attacks.evasion import EVASIONS
from firmground.errors import DataError
from firmground.studies.transfer_ablations import EQUAL, LARGER, LAST, LONG, LONG_LAST, OURS
from firmground.studies.transfer_convergence import LONG_MOMENTUM, MOMENTUM, NO_VIEWS, QUIET, TOKENS_ALONE
from firmground.studies.transfer_report import CONTROL, SURROGATE

STEPS = 40
SCENES = 96
LEVELS = (8, 4, 16)  # epsilon times 255, in the order in which they are run
ATTACKS = ("prm", OURS[0], "pgd", "nrd", "dr", "di", CONTROL)
FURTHER = (  # at one epsilon only
    "mi", "ilpd", "ti", "ni", "attack-vlm", "attack-vlm-text", "m-attack", "x-transfer", "si", "ssa", "fia",
)  # fmt: skip
TOWARDS = "a photo of a large purple star"
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "attack-vlm-text": ("attack-vlm", {"text": TOWARDS}),
    "ssa": ("ssa", {"copies": 5}),  # of 20 in its paper: still five times the passes of the others, as `si`
    "x-transfer": ("x-transfer", {"batch_size": SCENES}),  # every step sees as many images as those of the others
}
OTHER_SURROGATE = "resnet-2"
ON_OTHER = ("prm", OURS[0], "nrd", "di")  # at one epsilon only
ONE_LEVEL = 8  # epsilon, times 255, of the ablations and of further attacks
VARIANTS: dict[str, dict[str, Any]] = {
    LAST: {"layers": (-1,)},
    "first layers": {"layers": (0, 1)},
    "without the first layer": {"layers": (1, 2, 3)},
    "start at the image": {"random_start": False},
    "scales 0.5 to 1": {"scales": (0.5, 1.0)},
    "signs": {"optimizer": "sign", "step_size": 1 / 255},
    LARGER: {"step_size": 2 / 255},
    "four times the steps": {"steps": 4 * STEPS},
    LONG: {"steps": 250},
    LONG_LAST: {"layers": (-1,), "steps": 250},
    MOMENTUM: {"optimizer": "momentum", "step_size": 1 / 255},
    LONG_MOMENTUM: {"optimizer": "momentum", "step_size": 1 / 255, "steps": 250},
}
AT_LENGTH = ("pgd", "nrd", "dr", "mi", "di", "ilpd", OURS[0])  # with as many steps as PRM's paper takes, too
OTHER_LOSSES = ("nrd", "dr")  # with the optimizer of `mi`, too, which is that of `pgd`'s loss
TOKENS: dict[str, dict[str, Any]] = {  # of surrogates with a class token
    "patches only": {"tokens": "patches"},
    "class token only": {"tokens": "class"},
}
FEWER: dict[str, dict[str, Any]] = {EQUAL: {"steps": 34}}  # of ours: as many passes as the others' 40 steps
PARTS: dict[str, dict[str, Any]] = {  # of ours: what its terms add to PRM's
    QUIET: {"steps": 250, "views": 0.0, "pooled": 0.0, "noise": 0.0},
    TOKENS_ALONE: {"steps": 250, "views": 0.0, "pooled": 0.0},
    NO_VIEWS: {"steps": 250, "views": 0.0},
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """An attack at `epsilon` levels of 255 on a surrogate; no attack shows how good victims are when clean.

    `variant` names what an ablation changes of the attack, one of `VARIANTS`, `TOKENS`, `FEWER` or `PARTS`.
    """

    attack: str = ""
    epsilon: int = 0
    surrogate: str = SURROGATE
    variant: str = ""


def cases() -> tuple[Case, ...]:
    """Clean, all attacks at one epsilon after the other, ablations of PRM, further attacks, and another surrogate.

    Then ours with fewer steps, others with as many as PRM's paper takes, and with one optimizer, and parts of ours.
    """
    grid = (Case(attack=attack, epsilon=level) for level in LEVELS for attack in ATTACKS)
    ablations = (Case(attack="prm", epsilon=ONE_LEVEL, variant=variant) for variant in VARIANTS)
    others = (Case(attack=attack, epsilon=ONE_LEVEL) for attack in FURTHER)
    elsewhere = (Case(attack=attack, epsilon=ONE_LEVEL, surrogate=OTHER_SURROGATE) for attack in ON_OTHER)
    fewer = (Case(attack=OURS[0], epsilon=ONE_LEVEL, variant=variant) for variant in FEWER)
    longer = (Case(attack=attack, epsilon=ONE_LEVEL, variant=LONG) for attack in AT_LENGTH)
    alike = (
        Case(attack=attack, epsilon=ONE_LEVEL, variant=variant)
        for attack in OTHER_LOSSES
        for variant in (MOMENTUM, LONG_MOMENTUM)
    )
    parts = (Case(attack=OURS[0], epsilon=ONE_LEVEL, variant=variant) for variant in PARTS)
    return (Case(), *grid, *ablations, *others, *elsewhere, *fewer, *longer, *alike, *parts)


def method_of(case: Case, steps: int) -> Any:
    """The attack of a case with its settings; `DataError` for one that does not exist."""
    kinds = {kind.name: kind for kind in EVASIONS}
    name, own = SETTINGS.get(case.attack, (case.attack, {}))
    variants: dict[str, dict[str, Any]] = {"": {}} | VARIANTS | TOKENS | FEWER | PARTS
    if name not in kinds or case.variant not in variants:
        known = ", ".join([*kinds, *SETTINGS])
        raise DataError(f"there is no attack '{case.attack}' {case.variant}; expected one of: {known}")
    return kinds[name](**{"epsilon": case.epsilon / 255, "steps": steps} | own | variants[case.variant])
