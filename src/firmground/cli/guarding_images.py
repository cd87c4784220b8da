"""What the guard commands do for a dual encoder: fit on clean images, answer behind the guard, measure it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.cli.catalogue import family, word
from firmground.cli.dual_evaluation import DualEvaluation, aim_of
from firmground.cli.dual_measuring import stamped_by
from firmground.cli.guard_measuring import BATCH, Judged, answered, built, fitted, measured
from firmground.cli.held_out import in_memory, left_out, open_set
from firmground.cli.options import pick_device
from firmground.cli.usage import one_of
from firmground.data.files import read_texts
from firmground.defenses.guards.image_files import base_of, load_image_guard
from firmground.errors import DataError, UsageError
from firmground.models.dual import DualEncoder
from firmground.rng import stream
from firmground.tasks import zero_shot

if TYPE_CHECKING:
    from firmground.cli.dual_evaluation import Aimed
    from firmground.cli.guard_options import GuardOptions, Told
    from firmground.cli.held_out import Opened
    from firmground.types import Images, Watch


def fit(asked: GuardOptions, out: Path, watch: Watch) -> Told:
    """Fits a guard and writes it. Raises `UsageError` without classes."""
    what = f"{asked.encoder} is a dual encoder: a guard of its images"
    asked.check(what, needs=("data",), leave=("adapter", "scan", "texts"))
    chosen = asked.method or "mahalanobis"
    against_evasion = chosen in [word(guard) for guard in family("evasion-guards")]
    guard = built("evasion-guards" if against_evasion else "image-guards", chosen, asked.settings)
    encoder = loaded(asked)
    opened = opened_set(asked, encoder.image_size)
    found = guard.fit(encoder, in_memory(opened, watch), rng=stream(asked.seed, "guard"), watch=watch)
    found.save(out)
    return fitted(found, out, tuple(left_out([opened.pairs], opened.pairs.counted)))


def answer(guard: Path, asked: GuardOptions, watch: Watch) -> Told:
    """The class of each image, how suspicious it is, and whether that flags it."""
    asked.check(f"{guard} is a guard of images: it", needs=("images",), leave=("adapter", "texts"))
    encoder = loaded(asked, guard)
    found = load_image_guard(guard, encoder)
    names = found.label_names if asked.classes is None else read_texts(asked.classes)
    predict = zero_shot.classifier(encoder, names, found.templates)

    def told(image: Images) -> dict[str, Any]:
        scores = found.score(image)
        return {"answer": names[predict(image)[0]], "flagged": scores.flagged[0], "score": scores.values[0]}

    return answered(str(asked.images), None, told, watch)


def evaluate(guard: Path, asked: GuardOptions, watch: Watch) -> Told:
    """Rates without and with the guard, on clean images and with a trigger on them."""
    asked.check(f"{guard} is a guard of images: it", needs=("data",), leave=("adapter",))
    aimed = aim_of(
        DualEvaluation(
            source="", data="", trigger=one_of(asked.triggers), settings=asked.settings, target=asked.target,
            manifest=asked.manifest,
        )
    )  # fmt: skip
    encoder = loaded(asked, guard)
    found = load_image_guard(guard, encoder)
    opened = opened_set(asked, aimed.image_size or encoder.image_size)
    wanted = wanted_of(aimed, opened)
    data = in_memory(opened, watch)
    predict = zero_shot.classifier(encoder, opened.names, opened.templates)
    stamp = None if aimed.trigger is None else stamped_by(aimed.trigger, asked.seed)
    clean, stamped = Judged(), Judged()
    for start in range(0, len(data), BATCH):
        batch = data.batch(start, BATCH)
        clean.add(predict(batch), found.score(batch))
        if stamp is not None:
            marked = stamp(batch)
            stamped.add(predict(marked), found.score(marked))
        watch(min(start + BATCH, len(data)), len(data), "evaluating")
    told = tuple(left_out([opened.pairs], opened.pairs.counted))
    return measured(clean, data.labels, stamped, wanted, target=aimed.target, left_out=told)


def loaded(asked: GuardOptions, guard: Path | None = None) -> DualEncoder:
    """The encoder that was named, or the one that a guard was fitted on."""
    source = asked.encoder or (None if guard is None else base_of(guard))
    return DualEncoder.load(str(source), revision=asked.revision, device=pick_device(asked.device))


def opened_set(asked: GuardOptions, image_size: int) -> Opened:
    """The images with their classes. Raises `UsageError` where there are none."""
    opened = open_set(
        str(asked.data), image_size=image_size, root=asked.root, classes=asked.classes, templates=asked.templates
    )
    if not opened.names:
        raise UsageError("a guard of images needs classes; pass --classes FILE, or pairs with a column 'label'")
    return opened


def wanted_of(aimed: Aimed, opened: Opened) -> int | None:
    """The target's class, by its number; None without a trigger."""
    if aimed.trigger is None:
        return None
    if aimed.target not in opened.names:
        raise DataError(
            f"the target {aimed.target!r} is none of the classes: {', '.join(opened.names)}; name it with --target"
        )
    return opened.names.index(aimed.target)
