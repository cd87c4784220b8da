"""The study `prompt_accuracy`: what forms, label mappings and augmentation of a visual prompt are worth.

Beside the prompts stand a linear probe on the frozen base's features and no prompt at all: the base's own classes,
mapped to labels by how often images of each are taken for them (a CLIP that knows the labels' names needs no mapping).
Not the full product: every mapping with a padding, every form with the best mapping, augmentation with both. Tokens, in
the first layer or in all of them, are for the vision transformer; a resized padding has a learned width. What resizing
and augmentation change is measured by pairs over several seeds, augmentation also where images are scarce and epochs
many, for there it should help: see `Scarce` and `prompt_accuracy_report`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from firmground.prompts.mappings import LabelMapping, by_frequency, by_index, votes
from firmground.rng import stream
from firmground.studies.prompt_accuracy_report import DEEP, EPOCHS, IMAGES, NONE, PROBE, RESIZED, report_accuracy
from firmground.studies.prompt_attack import LEARNING
from firmground.studies.prompt_worlds import World, base, world
from firmground.studies.runner import Study
from firmground.tasks.image_classification import clean_batches, evaluate

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.augmentation import Augmentation
    from firmground.models.classifiers import ImageClassifier
    from firmground.prompts.mappings import MappingKind
    from firmground.prompts.visual import Form
    from firmground.types import Images, Watch

SCARCE, SHOWN = 100, 9600  # images; and how many a prompt learns from in all epochs, as in the other cases
TESTS = {"efficientnet": 500, "clip": 1000, "vit": 1000}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A prompt of this `form` and `mapping` on `base` in `world`; or one of the two that it stands beside."""

    base: str
    world: str
    form: str = "padding"
    mapping: str = "fully-connected"
    augmentation: str = "none"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Scarce(Case):
    """A case with so many images of a provider, who learns for so many epochs."""

    images: int
    epochs: int


def effort(case: Case) -> tuple[int, int]:
    """Images and epochs of a case."""
    return (case.images, case.epochs) if isinstance(case, Scarce) else (IMAGES[case.base], EPOCHS[case.base])


def run_case(case: Case, watch: Watch) -> dict[str, Any]:
    """CA on test images."""
    classifier, whole = base(case.base, case.world), world(case.world)
    images, epochs = effort(case)
    sets = whole.small(train=images, clean=len(whole.clean), test=TESTS[case.base])
    facts: dict[str, Any] = {}
    if case.form == NONE:
        predict = unprompted(classifier, sets)
    elif case.form == PROBE:
        predict = probe(classifier, sets.train)
    else:
        how = replace(
            LEARNING.get(case.base, LEARNING["clip"]),
            epochs=epochs,
            form=cast("Form", {DEEP: "tokens", RESIZED: "padding"}.get(case.form, case.form)),
            deep=case.form == DEEP,
            resize=case.form == RESIZED,
            mapping=cast("MappingKind", case.mapping),
            augmentation=cast("Augmentation", case.augmentation),
        )
        learned = how.fit(classifier, sets.train, rng=stream(case.seed, "learn a prompt"), watch=watch)
        assert learned.accuracy is not None
        facts = {"validation": asdict(learned.accuracy), "learning_seconds": learned.measurements["seconds"]}
        facts["inner"] = learned.prompt.shape.inner
        predict = learned.on(classifier).predict
    return facts | {"accuracy": asdict(evaluate(predict, sets.test).accuracy)}


@torch.no_grad()
def unprompted(classifier: ImageClassifier, sets: World) -> Callable[[Images], list[int]]:
    """The base alone: labels by their own names where these are its classes, else by frequency on training images."""
    names = sets.train.label_names
    if classifier.class_names == names:
        sources = by_index(len(names), len(names))
    else:
        found = torch.cat([classifier.logits(images).argmax(dim=1) for images in clean_batches(sets.train, 64)])
        counts = votes(found, torch.tensor(sets.train.labels), len(classifier.class_names), len(names))
        sources = by_frequency(counts)
    mapping = LabelMapping(kind="frequency", classes=len(classifier.class_names), sources=sources)

    @torch.no_grad()
    def predict(images: Images) -> list[int]:
        labels: list[int] = mapping(classifier.logits(images)).argmax(dim=1).tolist()
        return labels

    return predict


def probe(classifier: ImageClassifier, train: LabelledImages) -> Callable[[Images], list[int]]:
    """Logistic regression on what enters the base's last linear layer, or on a CLIP's embeddings."""
    from sklearn.linear_model import LogisticRegression

    rows = torch.cat([features(classifier, images) for images in clean_batches(train, 64)]).double()
    mean, scale = rows.mean(dim=0), rows.std(dim=0).clamp_min(1e-6)
    fitted = LogisticRegression(C=0.01, max_iter=1000).fit(((rows - mean) / scale).numpy(), list(train.labels))

    def predict(images: Images) -> list[int]:
        seen = (features(classifier, images).double() - mean) / scale
        return [int(label) for label in fitted.predict(seen.numpy())]

    return predict


@torch.no_grad()
def features(classifier: ImageClassifier, images: Images) -> torch.Tensor:
    """What a linear probe reads, (batch, width)."""
    if classifier.encoder is not None:
        return classifier.encoder.embed_images(images)
    last = [part for part in classifier.module.modules() if isinstance(part, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        classifier.logits(images)
    finally:
        hook.remove()
    return seen[0].flatten(1)


def cases() -> tuple[Case, ...]:
    """First every mapping and what prompts stand beside, then forms and augmentation."""
    small = [Case(base="clip", world=name, form=form, mapping="") for name in _WORLDS for form in (NONE, PROBE)]
    mapped = [Case(base="clip", world=name, mapping=kind) for name in _WORLDS for kind in _mappings(name)]
    real = [Case(base="efficientnet", world=name, form=form, mapping="") for name in _WORLDS for form in (NONE, PROBE)]
    best = [Case(base="efficientnet", world=name) for name in _WORLDS]
    ways = [Case(base="efficientnet", world="mnist", mapping=kind) for kind in ("iterated", "frequency")]
    more = [
        Case(base="clip", world=name, form=form)
        for name in ("fashion", "mnist")
        for form in ("full-image", "fixed-patch", "random-patch")
    ]
    changed = [Case(base="clip", world=name, augmentation="trivial") for name in _WORLDS]
    plain = [Case(base="clip", world="mnist", mapping="iterated", augmentation="trivial")]
    last = [
        Case(base="efficientnet", world="mnist", form="full-image"),
        Case(base="efficientnet", world="mnist", augmentation="trivial"),
    ]
    vit = [
        Case(base="vit", world=name, form=form, mapping="" if form in (NONE, PROBE) else "fully-connected")
        for name in ("mnist", "fashion")
        for form in (NONE, PROBE, "padding", "full-image", "tokens", DEEP)
    ]
    sized = [Case(base="clip", world=name, form=RESIZED) for name in _WORLDS]
    return (*small, *real, *best, *mapped, *changed, *more, *ways, *plain, *last, *vit, *sized, *_paired())


def _paired() -> tuple[Case, ...]:
    """With and without resizing or augmentation, of seeds of their own; augmentation also where images are scarce."""
    seeds = range(1, 4)  # and seed 0 has its fellows in the cells above
    ways: tuple[dict[str, str], ...] = ({}, {"form": RESIZED}, {"augmentation": "trivial"})
    found = [Case(base="clip", world=name, seed=seed, **way) for seed in seeds for name in _WORLDS for way in ways]
    few: list[Case] = [
        Scarce(base="clip", world=name, form=form, seed=seed, augmentation=kind, images=SCARCE, epochs=SHOWN // SCARCE)
        for form in ("padding", "full-image")
        for seed in (0, *seeds)
        for name in ("fashion", "mnist")
        for kind in ("none", "trivial")
    ]
    return (*found, *few)


_WORLDS = ("mnist", "fashion", "scenes")


def _mappings(name: str) -> tuple[str, ...]:
    return ("index", "fully-connected") if name == "scenes" else ("frequency", "iterated", "fully-connected")


def prompt_accuracy() -> Study:
    """CA of forms, mappings and augmentation, beside a linear probe and no prompt."""
    return Study(name="prompt_accuracy", cases=cases(), run_case=run_case, report=report_accuracy)
