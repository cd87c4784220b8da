"""Measures a dual encoder: zero-shot classification, retrieval, a linear probe, each with and without a trigger."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, TypeAlias

from firmground.cli.held_out import in_memory, split_set
from firmground.data.pairs import as_float
from firmground.errors import DataError, UsageError
from firmground.rng import stream
from firmground.tasks import linear_probe, retrieval, zero_shot
from firmground.types import Interval, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firmground.attacks.triggers import ImageTrigger
    from firmground.cli.held_out import Opened
    from firmground.models.dual import DualEncoder
    from firmground.tasks.image_classification import ImageResult
    from firmground.tasks.retrieval import RetrievalResult
    from firmground.types import Images

DualTask: TypeAlias = Literal["zero-shot", "retrieval", "linear-probe"]

TITLES = {
    "accuracy": "clean accuracy",
    "triggered_accuracy": "accuracy on triggered images",
    "targeted": "ASR, of images of other classes",
    "targeted_all": "ASR, of all images",
    "image_to_text": "image to text, recall",
    "text_to_image": "text to image, recall",
    "retrieval_targeted": "ASR, of images with other captions, recall",
    "retrieval_targeted_all": "ASR, of all images, recall",
    "retrieval_untriggered": "the same without the trigger, recall",
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The rates of a task by name, and the target that the ASR counts; None without a trigger."""

    rates: dict[str, Interval]
    target: str | None = None


def title(name: str) -> str:
    """A rate's name in words; recalls end in `_at_1`, `_at_5` and `_at_10`."""
    stem, found, depth = name.partition("_at_")
    return f"{TITLES[stem]} at {depth}" if found else TITLES[stem]


def task_of(opened: Opened) -> DualTask:
    """Zero-shot classification where two classes or more are known, else retrieval."""
    return "zero-shot" if len(opened.names) > 1 else "retrieval"


def measure(
    encoder: DualEncoder,
    opened: Opened,
    task: DualTask,
    *,
    seed: int,
    trigger: ImageTrigger | None = None,
    target: str | None = None,
    train: Opened | None = None,
    watch: Watch = ignore,
) -> Measured:
    """The rates of one task, with `trigger` also those of triggered images and the ASR towards `target`.

    Without a target it is the class that most triggered images are taken for; retrieval needs one. A linear probe is
    fitted to `train`, or to half of the pairs. Raises `UsageError` for a task that needs classes where none are known,
    `DataError` for a target that is no class.
    """
    stamp = None if trigger is None else stamped_by(trigger, seed)
    if task == "retrieval":
        if trigger is not None and target is None:
            raise UsageError("retrieval under a trigger needs to know what is to be fetched; name it with --target")
        found = retrieval.evaluate(encoder, opened.pairs, stamp=stamp, targets=_captions(opened, target))
        return Measured(rates=recalls(found), target=target)
    if not opened.names:
        raise UsageError(f"{task} needs classes; pass --classes FILE, pairs with a column 'label', or --task retrieval")
    aim = None if trigger is None or target is None else _number(target, opened.names)
    if task == "zero-shot":
        return rates(zero_shot.evaluate(encoder, in_memory(opened, watch), stamped=stamp, target=aim))
    if train is None:
        train, opened = split_set(opened, 0.5, stream(seed, "probe"))
    fitted, tested = in_memory(train, watch), in_memory(opened, watch)
    return rates(linear_probe.evaluate(encoder, fitted, tested, stamped=stamp, target=aim))


def stamped_by(trigger: ImageTrigger, seed: int) -> Callable[[Images], Images]:
    """What puts a trigger on a batch of images, its random places drawn from the seed."""
    rng = stream(seed, "stamp")

    def stamp(images: Images) -> Images:
        return trigger.stamp(as_float(images), rng=rng)

    return stamp


def rates(found: ImageResult) -> Measured:
    """The rates of a classification that there are."""
    values = {name: getattr(found, name) for name in ("accuracy", "triggered_accuracy", "targeted", "targeted_all")}
    return Measured(rates={name: value for name, value in values.items() if value is not None}, target=found.target)


def recalls(found: RetrievalResult) -> dict[str, Interval]:
    """All recalls of a retrieval, one name each."""
    flat: dict[str, Interval] = {}
    for field in fields(found):
        value = getattr(found, field.name)
        prefix = field.name if field.name.startswith(("image", "text")) else f"retrieval_{field.name}"
        if value is not None:
            flat |= {f"{prefix}_at_{depth}": getattr(value, f"at_{depth}") for depth in retrieval.DEPTHS}
    return flat


def _captions(opened: Opened, target: str | None) -> Sequence[str]:
    """The captions that name the target, filled in by the set's templates."""
    return () if target is None else tuple(template.format(target) for template in opened.templates)


def _number(target: str, names: Sequence[str]) -> int:
    if target not in names:
        raise DataError(f"the target '{target}' is none of the classes: {', '.join(names)}")
    return list(names).index(target)
