"""Measures a visual prompt: clean accuracy, attack success rates, and the controls that say what makes the attack."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from firmground.errors import DataError
from firmground.prompts.visual import PromptShape, VisualPrompt
from firmground.rng import stream
from firmground.tasks import image_classification

if TYPE_CHECKING:
    from firmground.attacks.prompts import PlacedTrigger
    from firmground.data.labelled_images import LabelledImages
    from firmground.prompts.prompted import PromptedClassifier
    from firmground.types import Images, Interval

RATES = {
    "accuracy": "clean accuracy",
    "triggered_accuracy": "accuracy on triggered images",
    "targeted": "ASR, of images of other classes",
    "targeted_all": "ASR, of all images",
    "prompt_only": "control: the prompt without the trigger",
    "trigger_only": "control: the trigger, and a blank prompt",
    "no_prompt": "control: the trigger, and no prompt",
    "clean_prompt": "control: the trigger, and the clean prompt",
    "accuracy_no_prompt": "clean accuracy without a prompt",
    "accuracy_clean_prompt": "clean accuracy of the clean prompt",
}


def measure(
    classifier: PromptedClassifier,
    data: LabelledImages,
    *,
    placed: PlacedTrigger | None = None,
    target: str | None = None,
    clean: PromptedClassifier | None = None,
    seed: int = 0,
) -> dict[str, Interval]:
    """The rates of `RATES` that there are, by name; those of a trigger where one is given.

    The controls count images of other classes that become the target: without the trigger; with it behind a prompt of
    the same form that was never learned; with it on images that fill the canvas, as without any prompt; and with it
    behind `clean`, a prompt of the same labels.
    """
    aim = None if target is None else data.label_names.index(target)
    own = _run(classifier, data, classifier.prompt, placed, aim, seed)
    bare = replace(classifier, prompt=nothing(classifier.prompt.shape.image_size))
    found = {name: getattr(own, name) for name in ("accuracy", "triggered_accuracy", "targeted", "targeted_all")}
    rates = {name: value for name, value in found.items() if value is not None}
    without = _run(bare, data, classifier.prompt, placed, aim, seed)
    rates["accuracy_no_prompt"] = without.accuracy
    other = None
    if clean is not None:
        other = _run(clean, data, clean.prompt, placed, aim, seed)
        rates["accuracy_clean_prompt"] = other.accuracy
    if placed is None or aim is None:
        return rates
    empty = replace(classifier, prompt=blank(classifier.prompt.shape))
    others = data.select([row for row, label in enumerate(data.labels) if label != aim])
    if not len(others):
        raise DataError(f"all images show the target '{target}'; an attack success rate needs others")
    rates["prompt_only"] = _become(classifier, others, aim)
    rates["trigger_only"] = _kept(_run(empty, data, classifier.prompt, placed, aim, seed).targeted)
    rates["no_prompt"] = _kept(without.targeted)
    if other is not None:
        rates["clean_prompt"] = _kept(other.targeted)
    return rates


def blank(shape: PromptShape) -> VisualPrompt:
    """A prompt of that shape before anything was learned: a grey border, faint tokens, or nothing."""
    return VisualPrompt(shape=shape, pixels=shape.bounded(shape.start()))


def nothing(image_size: int) -> VisualPrompt:
    """No prompt: the image fills the canvas."""
    return blank(PromptShape(form="full-image", image_size=image_size))


def _run(
    classifier: PromptedClassifier,
    data: LabelledImages,
    prompt: VisualPrompt,
    placed: PlacedTrigger | None,
    aim: int | None,
    seed: int,
) -> image_classification.ImageResult:
    """The rates of a classifier on images that are stamped as `prompt` seats them."""
    if placed is None or aim is None:
        return image_classification.evaluate(classifier.predict, data)
    rng, trigger = stream(seed, "stamp"), placed

    def stamp(images: Images) -> Images:
        return trigger.stamp(images, prompt, rng=rng)

    return image_classification.evaluate(classifier.predict, data, stamped=stamp, target=aim)


def _become(classifier: PromptedClassifier, others: LabelledImages, aim: int) -> Interval:
    """The share of clean images of other classes that are taken for the target."""
    return _kept(image_classification.evaluate(classifier.predict, others, stamped=lambda images: images, target=aim)
                 .targeted)  # fmt: skip


def _kept(found: Interval | None) -> Interval:
    assert found is not None  # there was a trigger
    return found
