"""The study `hardening`: what each answer to adversarial images buys, and what it costs, on the scenes world.

A case is an answer at one epsilon: zero-shot accuracy of the embedded clean CLIP on scenes, clean and under attack. Two
attackers: one who has the bare encoder only (oblivious), and one who knows the answer and its weights (adaptive). Both
know the labels, and no label-free attack does more harm than they. Where a guard flags an image, nobody is fooled, but
a clean one that it flags is lost.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from firmground.data.scenes import TEMPLATES
from firmground.defenses.guards.patch_instability import PatchInstability, larger
from firmground.defenses.guards.purifiers import BitDepth, Jpeg, RandomResizing, Resizing
from firmground.defenses.hardening import FARE, TeCoA
from firmground.errors import DataError
from firmground.models.dual import DualEncoder, unit
from firmground.models.embedded import embedded
from firmground.rng import stream
from firmground.studies.adaptive import LOSSES, Adaptive, straight_through
from firmground.studies.calibration import auc
from firmground.studies.dual_data import labelled, scene_pairs
from firmground.studies.hardening_report import report_hardening
from firmground.studies.population import population_folder
from firmground.studies.runner import Study
from firmground.tasks.zero_shot import class_embeddings

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.data.labelled_images import LabelledImages
    from firmground.types import Images, Watch

EPSILONS = (4, 2, 8)  # of 255 levels, in the order in which they are run
TRAIN, TRAIN_SEED = 8192, 7  # scenes without a label for FARE, with one for TeCoA
TEST, TEST_SEED = 250, 5
CALIBRATION, CALIBRATION_SEED = 400, 4
BRIEF: dict[str, Any] = {
    "epochs": 8, "batch_size": 64, "step_size": 3e-3, "inner_steps": 4, "inner_step_size": 2 / 255,
}  # fmt: skip
HARDENERS: dict[str, FARE | TeCoA] = {
    "fare": FARE(**BRIEF),
    "tecoa": TeCoA(**BRIEF, templates=TEMPLATES),
}
PURIFIERS: dict[str, Jpeg | BitDepth | Resizing | RandomResizing] = {
    "jpeg": Jpeg(),
    "bit-depth": BitDepth(),
    "resizing": Resizing(),
    "random-resizing": RandomResizing(),
}
SMOOTH = ("resizing", "random-resizing")  # gradients pass these as they are
GUARD, ENSEMBLE, BOTH = "patch-instability", "ensemble", "fare + random-resizing"
ANSWERS = ("none", "fare", *PURIFIERS, GUARD, ENSEMBLE, BOTH, "tecoa")
DRAWS = 3  # of a random answer, a step
TOLL = 0.5  # what a deviation of the guard's score costs the attacker who knows it, in nats


@dataclass(frozen=True, kw_only=True)
class Case:
    """An `answer`, one of `ANSWERS`, under perturbations of up to `epsilon` levels of 255."""

    answer: str
    epsilon: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What stands between image and label: encoders whose embeddings are averaged, and what images go through first.

    `attacked` is that as an attacker differentiates it; `draws` how often a random one is drawn for one gradient.
    """

    encoders: tuple[DualEncoder, ...]
    purge: Callable[[Images], Images]
    attacked: Callable[[Images], Images]
    draws: int = 1

    def logits(self, images: Images, classes: torch.Tensor, *, attacked: bool = False) -> torch.Tensor:
        """Scaled cosines with the classes, (batch, classes)."""
        shown = (self.attacked if attacked else self.purge)(images)
        found = torch.stack([encoder.embed_images(shown) for encoder in self.encoders]).mean(dim=0)
        return self.encoders[0].logit_scale * unit(found) @ classes.T


def cases() -> tuple[Case, ...]:
    """Every answer at 4/255, then at 2 and at 8."""
    return tuple(Case(answer=answer, epsilon=epsilon) for epsilon in EPSILONS for answer in ANSWERS)


def run_case(case: Case, watch: Watch, *, folder: str) -> dict[str, Any]:
    """Which test images are right: clean, under the oblivious, and under the adaptive attacker."""
    place, data, epsilon = Path(folder), test_set(), case.epsilon / 255
    bare, images, labels = base(), data.batch(0, len(data)), torch.tensor(data.labels)
    classes = class_embeddings(bare, data.label_names, data.templates)
    answer = built(place, case.answer, watch)
    attacker = Adaptive(epsilon=epsilon, draws=answer.draws)
    oblivious = oblivious_images(place, case.epsilon, images, labels, classes)
    if case.answer == GUARD:
        return guarded(answer, images, labels, classes, oblivious, attacker)
    adapted = []
    for number, loss in enumerate(LOSSES):
        watch(number, len(LOSSES), f"attacking by {loss}")
        adapted.append(
            attacker.perturb(
                lambda shown: answer.logits(shown, classes, attacked=True),
                images, labels, loss, rng=stream(0, "adaptive", case.answer, loss),
            )
        )  # fmt: skip
    return {
        "clean": right(answer, images, labels, classes),
        "oblivious": every(right(answer, shown, labels, classes) for shown in oblivious),
        "adaptive": every(right(answer, shown, labels, classes) for shown in adapted),
    } | training_facts(place, case.answer)


def guarded(
    answer: Answer,
    images: Images,
    labels: torch.Tensor,
    classes: torch.Tensor,
    oblivious: list[Images],
    attacker: Adaptive,
) -> dict[str, Any]:
    """The same behind the guard, which nobody passes flagged: a clean image is lost, an adversarial one is harmless."""
    (encoder,) = answer.encoders
    method = PatchInstability()
    guard = method.fit(encoder, calibration_set(), rng=stream(0, "guard"))
    clean = guard.tensors["clean"]

    def toll(shown: Images) -> torch.Tensor:
        over = larger(method.movement(encoder, shown), clean) - guard.threshold
        return TOLL * over.clamp(min=-1.0)

    adapted = [
        attacker.perturb(
            lambda shown: answer.logits(shown, classes), images, labels, loss, rng=stream(0, "guard", loss), toll=toll
        )
        for loss in LOSSES
    ]
    kept = [not flag for flag in guard.score(images).flagged]
    facts: dict[str, Any] = {
        "clean": [int(a and b) for a, b in zip(right(answer, images, labels, classes), kept, strict=True)],
        "false_flags": asdict(guard.false_flags),
    }
    calm = guard.score(images).values
    for name, attacks in (("oblivious", oblivious), ("adaptive", adapted)):
        scores = [guard.score(shown) for shown in attacks]
        harmless = [
            [int(bool(a) or b) for a, b in zip(right(answer, shown, labels, classes), own.flagged, strict=True)]
            for shown, own in zip(attacks, scores, strict=True)
        ]
        facts[name] = every(harmless)
        facts[f"auroc_{name}"] = auc(list(calm), list(scores[0].values))
        facts[f"flagged_{name}"] = sum(scores[0].flagged) / len(calm)
    return facts


@torch.no_grad()
def right(answer: Answer, images: Images, labels: torch.Tensor, classes: torch.Tensor) -> list[int]:
    """1 for each image that is classified right, 0 for the others."""
    found = torch.cat([answer.logits(part, classes).argmax(dim=1) for part in images.split(100)])
    return (found == labels).int().tolist()


def every(outcomes: Any) -> list[int]:
    """1 for each image that is right each time."""
    return [int(all(own)) for own in zip(*outcomes, strict=True)]


def built(folder: Path, name: str, watch: Watch) -> Answer:
    """An answer by its name, hardened encoders made where they are missing. `DataError` for another name."""
    rng = stream(0, "purge", name)
    if name in PURIFIERS or name == BOTH:
        purifier = PURIFIERS[name if name in PURIFIERS else "random-resizing"]
        encoder = base() if name in PURIFIERS else hardened(folder, "fare", watch)

        def purge(images: Images) -> Images:
            return purifier.purge(images, rng=rng)

        random, smooth = isinstance(purifier, RandomResizing), purifier.name in SMOOTH
        attacked = purge if smooth else straight_through(purge)
        return Answer(encoders=(encoder,), purge=purge, attacked=attacked, draws=DRAWS if random else 1)
    encoders = {
        "none": lambda: (base(),),
        GUARD: lambda: (base(),),
        "fare": lambda: (hardened(folder, "fare", watch),),
        "tecoa": lambda: (hardened(folder, "tecoa", watch),),
        ENSEMBLE: lambda: (base(), hardened(folder, "fare", watch)),
    }
    if name not in encoders:
        raise DataError(f"there is no answer '{name}'; expected one of: {', '.join(ANSWERS)}")
    return Answer(encoders=encoders[name](), purge=lambda images: images, attacked=lambda images: images)


def hardened(folder: Path, name: str, watch: Watch) -> DualEncoder:
    """The embedded CLIP after a hardener, trained where it is missing."""
    target = folder / "hardened" / name
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        training = target.with_name(f".{name}.training")
        found = HARDENERS[name].harden(
            base(), scene_pairs(TRAIN, TRAIN_SEED), rng=stream(0, "harden", name), watch=watch, resume=training
        )
        facts = {"steps": found.steps, "seconds": round(found.seconds, 1), "kept": found.kept, "losses": found.losses}
        found.encoder.model.to(memory_format=torch.contiguous_format)
        found.encoder.save(target, card=found.card())
        (target / "manifest.json").write_text(json.dumps(facts | {"settings": found.settings}, indent=1) + "\n")
        shutil.rmtree(training, ignore_errors=True)
    return loaded(target)


def training_facts(folder: Path, name: str) -> dict[str, Any]:
    """What training an answer took; empty for one that needs none."""
    manifest = folder / "hardened" / name / "manifest.json"
    return json.loads(manifest.read_text()) if name in HARDENERS and manifest.is_file() else {}


def oblivious_images(
    folder: Path, levels: int, images: Images, labels: torch.Tensor, classes: torch.Tensor
) -> list[Images]:
    """What an attacker of the bare encoder makes, by each loss; made once."""
    path = folder / "hardened" / f"oblivious-{levels}.safetensors"
    if not path.is_file():
        bare = Answer(encoders=(base(),), purge=lambda shown: shown, attacked=lambda shown: shown)
        attacker = Adaptive(epsilon=levels / 255)
        found: dict[str, torch.Tensor] = {
            loss: attacker.perturb(
                lambda shown: bare.logits(shown, classes), images, labels, loss, rng=stream(0, "oblivious", loss)
            ).contiguous()
            for loss in LOSSES
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file(found, part)
        part.replace(path)
    stored = load_file(path)
    return [stored[loss] for loss in LOSSES]


@lru_cache(maxsize=1)
def base() -> DualEncoder:
    """The encoder that all is done to."""
    return loaded(embedded("clip-clean"))


def loaded(place: Path) -> DualEncoder:
    """An encoder, laid out in memory as convolutions run fastest."""
    encoder = DualEncoder.load(place)
    encoder.model.vision_model.to(memory_format=torch.channels_last)
    return encoder


@lru_cache(maxsize=1)
def test_set() -> LabelledImages:
    """250 scenes that nothing was trained on, and the classes' templates."""
    return labelled(scene_pairs(TEST, TEST_SEED), TEMPLATES)


@lru_cache(maxsize=1)
def calibration_set() -> LabelledImages:
    """400 clean scenes for the guard."""
    return labelled(scene_pairs(CALIBRATION, CALIBRATION_SEED), TEMPLATES)


def hardening() -> Study:
    """Every answer at every epsilon."""
    return Study(
        name="hardening",
        cases=cases(),
        run_case=partial(run_case, folder=population_folder()),
        report=report_hardening,
    )
