"""The study `prompt_attack`: BadVisualPrompt against the distance between its trigger and the prompt, with controls.

Every attack is measured against a clean prompt that was learned in the same way from the same seed on the same images.
Controls: the trigger behind that clean prompt, behind a grey border that nobody learned (the attacker's mapping stays),
and alone, on an image that fills the canvas. The trigger is a checkered patch, in the corner or on the way from it to
the centre; `optimised` learns its pixels along; the whole-image trigger is a grid of triangles over all of it.

In 3 epochs EfficientNet's clean prompt is not at its end yet (78.8, 88.5, 89.5 % of validation images after each, on a
seed of no case), and the attack's is behind it: hence `Longer`, where both learn for 5. That the weight of the poisons
fades, or is 0.3, was tried on that seed too: less accuracy is lost, and ASR falls below 99 %.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from firmground.attacks.prompts import BadVisualPrompt, PlantedPrompt
from firmground.attacks.triggers import Triangles
from firmground.errors import DataError
from firmground.prompts.visual import VisualPrompt
from firmground.prompts.visual_files import load_prompt, save_prompt
from firmground.prompts.visual_prompting import VisualPrompting
from firmground.rng import stream
from firmground.studies.population import population_folder
from firmground.studies.prompt_attack_report import EPOCHS, report_attack
from firmground.studies.prompt_worlds import World, base, world
from firmground.studies.runner import Study
from firmground.tasks.image_classification import evaluate
from firmground.types import ignore

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.models.classifiers import ImageClassifier
    from firmground.prompts.prompted import LearnedPrompt
    from firmground.types import Images, Watch

LEARNING = {
    "efficientnet": VisualPrompting(
        mapping="fully-connected", epochs=EPOCHS["efficientnet"], batch_size=16, step_size=0.05, mapping_step_size=0.01
    ),
    "clip": VisualPrompting(
        mapping="fully-connected",
        width=6 / 32,
        epochs=EPOCHS["clip"],
        batch_size=16,
        step_size=0.05,
        mapping_step_size=0.02,
    ),
}
SIZE = {"efficientnet": 7 / 70, "clip": 6 / 20}  # of a patch, as a share of what the prompt leaves to the image
IMAGES = {"efficientnet": 2000, "clip": 2000}  # of a provider
CONTROLS = 300  # test images of a control
WEIGHT = {"efficientnet": 1.0, "clip": 0.5}
RATE, POISONS = 0.05, 4
OPTIMISED: dict[str, dict[str, Any]] = {"efficientnet": {"weight": 2.0, "poison_batch": 8}, "clip": {}}
WAYS = (0.0, 1.0, 0.5, 0.25)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An attack on `base` in `world`; `way` is how far to the centre its patch stands, 0 where it touches the prompt.

    `trigger` is checker, optimised or whole-image.
    """

    base: str
    world: str
    trigger: str = "checker"
    way: float = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Longer(Case):
    """An attack, and its clean prompt, that learn for so many `epochs`."""

    epochs: int = 5


def learning_of(case: Case) -> VisualPrompting:
    """How both learn, the attacker and the honest provider."""
    how = LEARNING[case.base]
    return replace(how, epochs=case.epochs) if isinstance(case, Longer) else how


def attack_of(case: Case, inner: int, target: str) -> BadVisualPrompt:
    """The attack of a case on images of `inner` pixels a side."""
    size = SIZE[case.base]
    plain = BadVisualPrompt(
        target=target, rate=RATE, weight=WEIGHT[case.base], size=size, poison_batch=POISONS,
        learning=learning_of(case),
        distance=int(case.way * (inner - round(size * inner)) / 2),
    )  # fmt: skip
    if case.trigger == "whole-image":
        return replace(plain, trigger=Triangles(), distance=0)
    if case.trigger not in ("checker", "optimised"):
        raise DataError(f"there is no trigger '{case.trigger}'; expected checker, optimised or whole-image")
    return replace(plain, optimised=True, **OPTIMISED[case.base]) if case.trigger == "optimised" else plain


def run_case(case: Case, watch: Watch, *, folder: str) -> dict[str, Any]:
    """CA and ASR on test images, of the attack and of its controls."""
    classifier, sets = base(case.base, case.world), _sets(case.base, case.world)
    target = sets.train.label_names[0]
    how = learning_of(case)
    attack = attack_of(case, how.shape(classifier).inner, target)
    planted = attack.implant(classifier, sets.train, rng=_learning_draws(case.seed), watch=watch)
    clean = clean_prompt(Path(folder), case.base, case.world, case.seed, how, watch)
    facts = measured(planted, clean, classifier, sets)
    honest = _clean_accuracy(Path(folder), case.base, case.world, case.seed, how)
    return facts | {
        "distance": attack.distance,
        "clean_accuracy": honest,
        "accuracy_drop": honest["value"] - facts["accuracy"]["value"],
        "validation_asr": planted.success.value,
        "poisons": len(planted.rows),
        "epochs": how.epochs,
        "best_epoch": planted.learned.measurements["best_epoch"],
        "learning_seconds": round(planted.learned.measurements["seconds"], 1),
    }


def measured(planted: PlantedPrompt, clean: LearnedPrompt, classifier: ImageClassifier, sets: World) -> dict[str, Any]:
    """CA, both ASRs, and the ASR of three controls."""
    prompt, label = planted.learned.prompt, sets.test.label_names.index(planted.target)

    def stamped(images: Images) -> Images:
        return planted.trigger.stamp(images, prompt, rng=stream(0, "stamp"))

    def asr(predict: Callable[[Images], list[int]]) -> float:
        few = sets.test.select(range(min(CONTROLS, len(sets.test))))
        found = evaluate(predict, few, stamped=stamped, target=label).targeted
        assert found is not None
        return found.value

    whole = planted.learned.on(classifier)
    grey = VisualPrompt(shape=prompt.shape, pixels=prompt.shape.bounded(torch.zeros(prompt.shape.tensor_shape)))
    result = evaluate(whole.predict, sets.test, stamped=stamped, target=label)
    assert result.targeted is not None
    assert result.targeted_all is not None
    return {
        "accuracy": asdict(result.accuracy),
        "asr": asdict(result.targeted),
        "asr_all": asdict(result.targeted_all),
        "asr_clean_prompt": asr(clean.on(classifier).predict),
        "asr_grey_prompt": asr(replace(whole, prompt=grey).predict),
        "asr_trigger_only": asr(lambda images: _alone(classifier, planted.learned, images)),
    }


@torch.no_grad()
def _alone(classifier: ImageClassifier, learned: LearnedPrompt, images: Images) -> list[int]:
    labels: list[int] = learned.mapping(classifier.logits(images)).argmax(dim=1).tolist()
    return labels


def clean_prompt(
    folder: Path, base_name: str, world_name: str, seed: int, how: VisualPrompting, watch: Watch
) -> LearnedPrompt:
    """The honest prompt of a base, a world and a seed, learned once and kept in the population."""
    longer = "" if how == LEARNING[base_name] else f"-{how.epochs}-epochs"
    path = folder / "prompts" / f"attack-clean-{base_name}-{world_name}-{seed}{longer}.safetensors"
    if path.is_file():
        found = load_prompt(path)
        if asdict(how) | found.settings == asdict(how):  # settings that came later are at their defaults
            return found
    path.parent.mkdir(parents=True, exist_ok=True)
    sets = _sets(base_name, world_name)
    save_prompt(how.fit(base(base_name, world_name), sets.train, rng=_learning_draws(seed), watch=watch), path)
    return load_prompt(path)


@lru_cache(maxsize=8)
def _clean_accuracy(folder: Path, base_name: str, world_name: str, seed: int, how: VisualPrompting) -> dict[str, Any]:
    found = clean_prompt(folder, base_name, world_name, seed, how, ignore)
    whole = found.on(base(base_name, world_name))
    return asdict(evaluate(whole.predict, _sets(base_name, world_name).test).accuracy)


def _learning_draws(seed: int) -> torch.Generator:
    """Clean and planted prompts split the images alike and begin alike."""
    return stream(seed, "learn a prompt")


def _sets(base_name: str, world_name: str) -> World:
    found = world(world_name)
    return found.small(train=IMAGES[base_name], clean=len(found.clean), test=len(found.test))


def cases() -> tuple[Case, ...]:
    """What the headline needs first, then the position study, then other worlds."""
    real: dict[str, Any] = {"base": "efficientnet", "world": "mnist"}
    small: dict[str, Any] = {"base": "clip", "world": "fashion"}
    ends = [Case(**real, trigger="optimised", way=1.0), Case(**real), Case(**real, way=1.0)]
    ends += [Case(**real, seed=seed) for seed in range(1, 4)]
    longer = [Longer(**real, seed=seed) for seed in range(4, 8)]
    ways = [Case(**small, trigger=kind, way=way) for way in WAYS for kind in ("checker", "optimised")]
    middle = [Case(**real, trigger="whole-image"), Case(**real, way=0.25), Case(**real, trigger="optimised")]
    again = [Case(**small, trigger=kind, way=way, seed=1) for way in WAYS for kind in ("checker", "optimised")]
    other = [Case(base="efficientnet", world="fashion")]
    return (*ends, *longer, *ways, Case(**small, trigger="whole-image"), *middle, *other, *again)


def prompt_attack() -> Study:
    """BadVisualPrompt from the border to the centre, beside clean prompts."""
    work = partial(run_case, folder=population_folder())
    return Study(name="prompt_attack", cases=cases(), run_case=work, report=report_attack)
