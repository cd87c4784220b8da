"""The study `transfer`: what adversarial images made on one open CLIP do to everything built on it or beside it.

A case is one attack at one epsilon on one surrogate: the images are made once, without labels, texts or task heads,
rounded to 8 bits, and shown to every victim. All attacks take `STEPS` steps. Clean and attacked runs draw the same
images in their bootstraps, so the intervals of relative drops know that they share them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch

from firmground.attacks.evasion import EVASIONS
from firmground.attacks.evasion.perturbed import rounded
from firmground.errors import DataError
from firmground.rng import stream
from firmground.studies.population import population_folder
from firmground.studies.runner import Study
from firmground.studies.transfer_ablations import EQUAL, LARGER, LAST, LONG, LONG_LAST, OURS
from firmground.studies.transfer_convergence import (
    LONG_MOMENTUM,
    MOMENTUM,
    NO_VIEWS,
    READINGS,
    TOKENS_ALONE,
    reading,
)
from firmground.studies.transfer_report import CONTROL as NOISE
from firmground.studies.transfer_report import SURROGATE, report_transfer
from firmground.studies.victims.building import Recipe, built, encoder_of
from firmground.studies.victims.catalogue import GROUPS, VICTIMS, Plan
from firmground.studies.victims.lessons import TASKS, examination
from firmground.tasks import captioning, detection, question_answering, segmentation
from firmground.tasks.resampling import percentile, relative_drop

if TYPE_CHECKING:
    from firmground.data.annotated_images import AnnotatedImages
    from firmground.types import Images, Watch

STEPS = 40
SCENES = 96
LEVELS = (8, 4, 16)  # epsilon times 255, in the order in which they are run
ATTACKS = ("prm", OURS[0], "pgd", "nrd", "dr", "di", NOISE)
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
    TOKENS_ALONE: {"steps": 250, "views": 0.0, "pooled": 0.0},
    NO_VIEWS: {"steps": 250, "views": 0.0},
}
JUDGES: dict[str, Any] = {
    "segmentation": segmentation.evaluate,
    "detection": detection.evaluate,
    "captioning": captioning.evaluate,
    "vqa": question_answering.evaluate,
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


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a run is made of; smaller in tests."""

    folder: str
    victims: tuple[Plan, ...] = VICTIMS
    scenes: int = SCENES
    steps: int = STEPS
    recipe: Recipe = field(default_factory=Recipe)


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


def run_case(case: Case, watch: Watch, *, setting: Setting) -> dict[str, Any]:
    """Every victim's score, clean and attacked, with its relative drop, and mean drops by task and group.

    `replicates` are those of the means by task and by what is read (see `transfer_convergence`): all cases draw the
    same images, so that two of them can be compared in pairs.
    """
    data = exam(setting.scenes)
    if not case.attack:
        return {"victims": {plan.name: _clean_facts(setting, plan, case.surrogate) for plan in setting.victims}}
    images, facts = attacked(case, setting, torch.stack([data.image(row) for row in range(len(data))]), watch)
    drops, replicates = {}, {}
    for number, plan in enumerate(setting.victims):
        clean = clean_result(setting, plan)
        found = judge(setting, plan, data.with_images(images), watch)
        drop = relative_drop(
            clean.headline.value, found.headline.value, clean.replicates, found.replicates, setting.scenes
        )
        before, after = numpy.asarray(clean.replicates), numpy.asarray(found.replicates)
        replicates[plan.name] = 1 - after / numpy.maximum(before, 1e-9)
        drops[plan.name] = {
            "clean": clean.headline.value, "attacked": found.headline.value, "drop": asdict(drop),
            "group": plan.group(case.surrogate), "task": plan.task,
        }  # fmt: skip
        watch(number + 1, len(setting.victims), "judging")
    return facts | {
        "victims": drops, "means": _means(drops, replicates, setting.scenes), "replicates": _paired(drops, replicates),
    }  # fmt: skip


def attacked(case: Case, setting: Setting, clean: Images, watch: Watch) -> tuple[Images, dict[str, Any]]:
    """Adversarial images of a case, of 8 bits, and how they were made."""
    rng, epsilon = stream(0, "transfer", case.attack, case.variant), case.epsilon / 255
    if case.attack == NOISE:
        signs = torch.randint(0, 2, clean.shape, generator=rng) * 2 - 1
        return rounded(clean + epsilon * signs, clean, epsilon), {"seconds": 0.0}
    encoder = encoder_of(Path(setting.folder), case.surrogate, watch)
    made = method_of(case, setting.steps).perturb(encoder, clean, rng=rng, watch=watch)
    return made.images, {
        "seconds": round(made.seconds, 1),
        "doubts": list(made.doubts),
        "settings": repr(made.settings),
    }


def method_of(case: Case, steps: int) -> Any:
    """The attack of a case with its settings; `DataError` for one that does not exist."""
    kinds = {kind.name: kind for kind in EVASIONS}
    name, own = SETTINGS.get(case.attack, (case.attack, {}))
    variants: dict[str, dict[str, Any]] = {"": {}} | VARIANTS | TOKENS | FEWER | PARTS
    if name not in kinds or case.variant not in variants:
        known = ", ".join([*kinds, *SETTINGS])
        raise DataError(f"there is no attack '{case.attack}' {case.variant}; expected one of: {known}")
    return kinds[name](**{"epsilon": case.epsilon / 255, "steps": steps} | own | variants[case.variant])


@lru_cache(maxsize=1)
def exam(scenes: int) -> AnnotatedImages:
    """The test scenes, drawn once a process."""
    return examination(scenes)


@lru_cache(maxsize=64)
def victim(setting: Setting, plan: Plan) -> Any:
    """A victim, made where it is missing and loaded once a process."""
    from firmground.types import ignore

    return built(Path(setting.folder), plan, ignore, recipe=setting.recipe)


@lru_cache(maxsize=64)
def clean_result(setting: Setting, plan: Plan) -> Any:
    """How good a victim is on clean images, measured once a process."""
    from firmground.types import ignore

    return judge(setting, plan, exam(setting.scenes), ignore)


def judge(setting: Setting, plan: Plan, data: AnnotatedImages, watch: Watch) -> Any:
    """The result of a victim's task; all runs draw the same images in their bootstraps."""
    size = 256 if plan.task == "vqa" else 64
    return JUDGES[plan.task](victim(setting, plan), data, batch_size=size, rng=stream(0, "transfer bootstrap"))


def _clean_facts(setting: Setting, plan: Plan, surrogate: str) -> dict[str, Any]:
    found = clean_result(setting, plan)
    facts: dict[str, Any] = {"score": asdict(found.headline), "group": plan.group(surrogate), "task": plan.task}
    for name in ("base", "novel", "base_ap50", "novel_ap50", "ap", "pixel_accuracy"):
        interval = getattr(found, name, None)
        if interval is not None:
            facts[name] = asdict(interval)
    if plan.task == "captioning":
        facts["bleu_4"] = asdict(found.bleu[3])
    if plan.task == "vqa":
        facts["kinds"] = {one.kind: round(one.accuracy.value, 3) for one in found.kinds}
    return facts


def _means(drops: dict[str, Any], replicates: dict[str, Any], scenes: int) -> dict[str, Any]:
    """Mean relative drops over the victims of a task, of all groups and of each."""
    found: dict[str, Any] = {}
    for task in TASKS:
        for group in ("all", *GROUPS):
            chosen = [name for name, own in drops.items() if own["task"] == task and group in ("all", own["group"])]
            if chosen:
                value = float(numpy.mean([drops[name]["drop"]["value"] for name in chosen]))
                spread = numpy.mean([replicates[name] for name in chosen], axis=0)
                found.setdefault(task, {})[group] = asdict(percentile(value, spread, scenes)) | {"victims": len(chosen)}
    return found


def _paired(drops: dict[str, Any], replicates: dict[str, Any]) -> dict[str, list[float]]:
    """Replicates of the mean drop over the victims of each task, and of those that read one thing."""
    found = {}
    for kind in (*TASKS, *READINGS):
        chosen = [name for name, own in drops.items() if kind in (own["task"], reading(name))]
        if chosen:
            found[kind] = numpy.mean([replicates[name] for name in chosen], axis=0).round(4).tolist()
    return found


def transfer() -> Study:
    """All attacks at three epsilons on all victims, and ablations of PRM."""
    work = partial(run_case, setting=Setting(folder=population_folder()))
    return Study(name="transfer", cases=cases(), run_case=work, report=report_transfer)
