"""What the guard commands do for an image classifier, prompted or not: fit on clean images, answer, measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.cli.bases import labelled_images, load_base
from firmground.cli.guard_measuring import BATCH, Judged, answered, built, fitted, measured
from firmground.cli.options import pick_device
from firmground.cli.prompt_aims import aim_of
from firmground.cli.prompt_measuring import nothing
from firmground.cli.usage import one_of
from firmground.defenses.guards.classifier_files import load_classifier_guard
from firmground.errors import UsageError
from firmground.models.dual import DualEncoder
from firmground.prompts.visual_files import load_prompt
from firmground.rng import stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.cli.bases import Given
    from firmground.cli.guard_options import GuardOptions, Told
    from firmground.defenses.guards import FittedClassifierGuard
    from firmground.models.classifiers import ImageClassifier
    from firmground.prompts.prompted import LearnedPrompt, PromptedClassifier
    from firmground.types import Images, Watch


@dataclass(frozen=True, kw_only=True, eq=False)
class Front:
    """The classifier that a guard stands before, with its prompt if it has one, and the names of its labels."""

    classifier: ImageClassifier | PromptedClassifier
    learned: LearnedPrompt | None
    label_names: tuple[str, ...]
    image_size: int


def front(asked: GuardOptions) -> Front:
    """Loads it. Raises `FirmgroundError`; `UsageError` for a dual encoder without a prompt."""
    learned = None if asked.adapter is None else load_prompt(asked.adapter)
    base = load_base(str(asked.encoder), revision=asked.revision, device=pick_device(asked.device))
    if learned is not None:
        names, size = learned.label_names, learned.base.image_size
        return Front(classifier=learned.on(base), learned=learned, label_names=names, image_size=size)
    if isinstance(base, DualEncoder):
        raise UsageError(f"{asked.encoder} is a dual encoder, and the guard is of classifiers; name its prompt with "
                         "--adapter")  # fmt: skip
    return Front(classifier=base, learned=None, label_names=base.class_names, image_size=base.image_size)


def images_of(asked: GuardOptions, before: Front, watch: Watch) -> Given:
    """The labelled images, with the labels of the classifier."""
    return labelled_images(
        str(asked.data), image_size=before.image_size, watch=watch, root=asked.root, classes=asked.classes,
        templates=asked.templates, names=before.label_names,
    )  # fmt: skip


def fit(asked: GuardOptions, out: Path, watch: Watch) -> Told:
    """Fits a guard and writes it. Raises `FirmgroundError`."""
    asked.check("a guard of an image classifier, on clean images,", needs=("data",), leave=("scan", "texts"))
    guard = built("classifier-guards", asked.method or "part-swap", asked.settings)
    before = front(asked)
    given = images_of(asked, before, watch)
    found = guard.fit(before.classifier, given.data, rng=stream(asked.seed, "guard"), watch=watch)
    found.save(out)
    return fitted(found, out, given.left_out)


def answer(guard: Path, asked: GuardOptions, watch: Watch) -> Told:
    """The label of each image, how suspicious it is, and whether that flags it.

    Where the guard repairs, `repaired` is the label that it believes of a flagged image.
    """
    asked.check(f"{guard} is a guard of a classifier: it", needs=("encoder", "images"), leave=("texts",))
    before = front(asked)
    found = load_classifier_guard(guard, before.classifier)

    def told(image: Images) -> dict[str, Any]:
        one = found.answer(image)
        label, repaired = (before.label_names[number] for number in (one.labels[0], one.repaired[0]))
        told = {"answer": label, "flagged": one.scores.flagged[0], "score": one.scores.values[0]}
        return told | ({"repaired": repaired} if found.repairs and one.scores.flagged[0] else {})

    return answered(str(asked.images), before.image_size, told, watch)


def evaluate(guard: Path, asked: GuardOptions, watch: Watch) -> Told:
    """Rates without and with the guard, on clean images and with a trigger: that named, or a planted prompt's own."""
    asked.check(f"{guard} is a guard of a classifier: it", needs=("encoder", "data"), leave=())
    before = front(asked)
    planted = None if before.learned is None else before.learned.planted
    aim = aim_of(
        before.label_names, planted, trigger=one_of(asked.triggers), settings=asked.settings, target=asked.target,
        manifest=asked.manifest,
    )  # fmt: skip
    found = load_classifier_guard(guard, before.classifier)
    given = images_of(asked, before, watch)
    data, stamped, target = given.data, None, None
    batches = [data.batch(start, BATCH) for start in range(0, len(data), BATCH)]
    clean = judged(found, batches, lambda images: images)
    if aim is not None:
        placed, rng, target = aim.placed, stream(asked.seed, "stamp"), aim.target
        prompt = nothing(before.image_size) if before.learned is None else before.learned.prompt
        stamped = judged(found, batches, lambda images: placed.stamp(images, prompt, rng=rng))
    wanted = None if target is None else before.label_names.index(target)
    return measured(clean, data.labels, stamped, wanted, target=target, left_out=given.left_out)


def judged(guard: FittedClassifierGuard, batches: list[Images], stamp: Callable[[Images], Images]) -> Judged:
    """Shows a guard all images, each batch as `stamp` gives it."""
    found = Judged()
    for images in map(stamp, batches):
        one = guard.answer(images)
        found.add(one.labels, one.scores, one.repaired if guard.repairs else ())
    return found
