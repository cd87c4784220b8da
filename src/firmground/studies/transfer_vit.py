"""The study `transfer_vit`: a vision transformer as the surrogate, and victims that stand on it.

The same steps and judges as `transfer`, on its first `SCENES` scenes and fewer victims: four on the transformer
`vit-2`, one of each task, and as many on other towers, two of them on its teacher `resnet-2`. It holds what only a
transformer can show: which tokens PRM should compare, and the attacks that change gradients inside of attention. Some
attacks are made on `resnet-1` too, to see what reaches a transformer from a convolutional tower.
"""

from __future__ import annotations

from functools import partial

from firmground.studies.population import population_folder
from firmground.studies.runner import Study
from firmground.studies.transfer import Setting, run_case
from firmground.studies.transfer_ablations import LONG, OURS
from firmground.studies.transfer_cases import ONE_LEVEL, TOKENS, Case
from firmground.studies.transfer_report import CONTROL, SURROGATE, report_transfer
from firmground.studies.victims.catalogue import VIT, VIT_VICTIMS, victim_named

JURY = (
    *VIT_VICTIMS,
    *(
        victim_named(name)
        for name in (
            "segmentation-crops-resnet-2",
            "vqa-attention-resnet-2",
            "detection-crops-resnet-1",
            "captioning-attributes-resnet-1",
        )
    ),
)
SCENES = 48
ATTACKS = ("prm", OURS[0], "pgd", "nrd", "mi", "di", "tgr", "pna-patchout", CONTROL)
ON_RESNET = ("prm", OURS[0], "di")
AT_LENGTH = ("prm", "nrd", "pgd", "mi", "di", "tgr")  # with as many steps as PRM's paper takes, too


def cases() -> tuple[Case, ...]:
    """Clean, the attacks on the transformer, PRM with some tokens only, and attacks on the convolutional tower.

    Last come the attacks on the transformer with as many steps as PRM's paper takes.
    """
    grid = (Case(attack=attack, epsilon=ONE_LEVEL, surrogate=VIT) for attack in ATTACKS)
    tokens = (Case(attack="prm", epsilon=ONE_LEVEL, surrogate=VIT, variant=name) for name in TOKENS)
    elsewhere = (Case(attack=attack, epsilon=ONE_LEVEL, surrogate=SURROGATE) for attack in ON_RESNET)
    longer = (Case(attack=attack, epsilon=ONE_LEVEL, surrogate=VIT, variant=LONG) for attack in AT_LENGTH)
    return (Case(surrogate=VIT), *grid, *tokens, *elsewhere, *longer)


def transfer_vit() -> Study:
    """Attacks on a vision transformer at one epsilon on eight victims."""
    work = partial(run_case, setting=Setting(folder=population_folder(), victims=JURY, scenes=SCENES))
    report = partial(report_transfer, study="transfer_vit", surrogate=VIT)
    return Study(name="transfer_vit", cases=cases(), run_case=work, report=report)
