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

from firmground.attacks.evasion.perturbed import rounded
from firmground.rng import stream
from firmground.studies.population import population_folder
from firmground.studies.runner import Study
from firmground.studies.transfer_cases import SCENES, STEPS, Case, cases, method_of
from firmground.studies.transfer_convergence import READINGS, reading
from firmground.studies.transfer_report import CONTROL, report_transfer
from firmground.studies.victims.building import Recipe, built, encoder_of
from firmground.studies.victims.catalogue import GROUPS, VICTIMS, Plan
from firmground.studies.victims.lessons import TASKS, examination
from firmground.tasks import captioning, detection, question_answering, segmentation
from firmground.tasks.resampling import percentile, relative_drop

if TYPE_CHECKING:
    from firmground.data.annotated_images import AnnotatedImages
    from firmground.types import Images, Watch

JUDGES: dict[str, Any] = {
    "segmentation": segmentation.evaluate,
    "detection": detection.evaluate,
    "captioning": captioning.evaluate,
    "vqa": question_answering.evaluate,
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a run is made of; smaller in tests."""

    folder: str
    victims: tuple[Plan, ...] = VICTIMS
    scenes: int = SCENES
    steps: int = STEPS
    recipe: Recipe = field(default_factory=Recipe)


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
    if case.attack == CONTROL:
        signs = torch.randint(0, 2, clean.shape, generator=rng) * 2 - 1
        return rounded(clean + epsilon * signs, clean, epsilon), {"seconds": 0.0}
    encoder = encoder_of(Path(setting.folder), case.surrogate, watch)
    made = method_of(case, setting.steps).perturb(encoder, clean, rng=rng, watch=watch)
    return made.images, {
        "seconds": round(made.seconds, 1),
        "doubts": list(made.doubts),
        "settings": repr(made.settings),
    }


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
