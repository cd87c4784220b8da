"""The base of a visual prompt, whatever its kind, a prompt on it, and labelled images for both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from firmground.cli.held_out import in_memory, left_out, open_set
from firmground.cli.labels import renumbered
from firmground.data.counting import several
from firmground.data.decoding import decode
from firmground.data.image_files import image_paths
from firmground.errors import DataError, FirmgroundError, UnsupportedModelError, UsageError
from firmground.models.classifiers import ImageClassifier
from firmground.models.dual import DualEncoder
from firmground.models.inspecting import DUAL_FAMILIES, FAMILIES, model_type
from firmground.models.loading import resolve
from firmground.models.loading_classifier import CLASSIFIER_FAMILIES
from firmground.prompts.visual_files import content_sha256, load_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.data.labelled_images import LabelledImages
    from firmground.prompts.prompted import LearnedPrompt, PromptedClassifier
    from firmground.types import Watch


def is_classifier(source: str, revision: str | None) -> bool:
    """Whether an image classifier lies there; where nothing usable does, loading says why, and this does not."""
    try:
        family = model_type(resolve(source, revision=revision))
    except FirmgroundError:
        return False
    return family in CLASSIFIER_FAMILIES


def load_base(source: str, *, revision: str | None, device: torch.device) -> ImageClassifier | DualEncoder:
    """The image classifier or dual encoder of a directory or hub id. Raises `ModelError` for anything else."""
    family = model_type(resolve(source, revision=revision))
    if family in DUAL_FAMILIES:
        return DualEncoder.load(source, revision=revision, device=device)
    if family in FAMILIES:
        raise UnsupportedModelError(
            f"{source} is a language encoder ({family}), which sees no images; expected an image classifier or a dual "
            "encoder"
        )
    if family not in CLASSIFIER_FAMILIES:
        raise UnsupportedModelError(
            f"{source} is a model of type '{family}'; expected a dual encoder ({', '.join(DUAL_FAMILIES)}) or an image "
            f"classifier ({', '.join(CLASSIFIER_FAMILIES)})"
        )
    classifier = ImageClassifier.load(source, revision=revision)
    classifier.module.to(device)
    return classifier


@dataclass(frozen=True, kw_only=True, eq=False)
class OnBase:
    """A prompt with the base that it was learned on, and the classifier that they make together."""

    learned: LearnedPrompt
    base: ImageClassifier | DualEncoder
    classifier: PromptedClassifier


def prompt_on(prompt: str, model: str | None, *, revision: str | None, device: torch.device) -> OnBase:
    """Reads a prompt and puts it on `model`. Raises `UsageError` without one, `AdapterError` for another base."""
    learned = load_prompt(prompt)
    if model is None:
        raise UsageError(f"{prompt} is a visual prompt; name the model that it stands on, {learned.base.source}, "
                         "with --model")  # fmt: skip
    base = load_base(model, revision=revision, device=device)
    return OnBase(learned=learned, base=base, classifier=learned.on(base))


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """Labelled images that a command was given, and in words what of them is not used."""

    data: LabelledImages
    left_out: tuple[str, ...]


def labelled_images(
    source: str,
    *,
    image_size: int,
    watch: Watch,
    root: str | None = None,
    classes: str | None = None,
    templates: str | None = None,
    names: Sequence[str] | None = None,
) -> Given:
    """A folder of classes or a table with labels as squares of `image_size` pixels; with `names`, in their order.

    Raises `DataError` where nothing is labelled, or with a label that is not among `names`.
    """
    opened = open_set(source, image_size=image_size, root=root, classes=classes, templates=templates)
    if not opened.names:
        raise DataError(
            f"{source} has no labels; give a folder with a folder of images a class, a table with a column 'label', "
            f"or captions that name one of --classes"
        )
    data = in_memory(opened, watch)
    told = list(left_out([opened.pairs], opened.pairs.counted))
    unused = len(opened.named) - len(data) - len(opened.pairs.broken)
    if unused > 0:
        told.append(f"{unused} images do not fit into memory and were left out; {len(data)} spread over the set remain")
    return Given(data=data if names is None else aligned(data, names), left_out=tuple(told))


def further_images(source: str, *, image_size: int, watch: Watch) -> tuple[torch.Tensor, tuple[str, ...]]:
    """The images of a folder as squares, (count, 3, image_size, image_size) uint8, and in words which are left out.

    Raises `DataError` where none can be read.
    """
    paths, found, broken = image_paths(source), [], 0
    for done, path in enumerate(paths, start=1):
        try:
            found.append(decode(path.read_bytes(), image_size, str(path)))
        except (OSError, DataError):
            broken += 1
        watch(done, len(paths), "reading further images")
    if not found:
        raise DataError(f"none of the {broken} files of {source} can be read as an image")
    return torch.stack(found), (f"{several(broken, 'file')} of {source} cannot be read",) if broken else ()


def aligned(data: LabelledImages, names: Sequence[str]) -> LabelledImages:
    """The same images with their labels in a prompt's order. Raises `DataError` for a label that it has not."""
    new = renumbered(data.label_names, names)
    return replace(data, labels=tuple(new[label] for label in data.labels), label_names=tuple(names))


def prompt_sha256(learned: LearnedPrompt) -> str:
    """The hash of a prompt's pixels and mapping, in hex: the same for the same prompt, whatever else its file says."""
    mapping = learned.mapping
    held = {"pixels": learned.prompt.pixels, "sources": mapping.sources, "weight": mapping.weight, "bias": mapping.bias}
    return content_sha256("", {name: value.detach().cpu() for name, value in held.items() if value is not None})
