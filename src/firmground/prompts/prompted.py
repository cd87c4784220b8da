"""A learned visual prompt with its label mapping and the classifier that it was learned for, and the two at work."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from firmground.errors import AdapterError, DataError
from firmground.models.classifiers import ImageClassifier
from firmground.models.dual import DualEncoder
from firmground.prompts.mappings import LabelMapping
from firmground.prompts.tokens import inserted
from firmground.prompts.visual import VisualPrompt

if TYPE_CHECKING:
    from firmground.types import Images, Interval


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """The classifier that a prompt belongs to: its name, hub revision, hash of its weights, and how it reads images.

    A pixel x in [0, 1] becomes (scale * x - mean) / std. `class_names` are its own classes; with `templates` they are
    texts of a dual encoder.
    """

    source: str
    revision: str | None
    sha256: str
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    class_names: tuple[str, ...]
    templates: tuple[str, ...] = ()


def describe_base(base: ImageClassifier) -> BaseModel:
    """What identifies a classifier; hashes its weights once."""
    numbers = base.preprocessing
    return BaseModel(
        source=base.source,
        revision=base.revision,
        sha256=base.sha256,
        image_size=numbers.size,
        mean=numbers.mean,
        std=numbers.std,
        scale=numbers.scale,
        class_names=base.class_names,
        templates=base.templates,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptedClassifier:
    """A frozen base behind a prompt: images of any size in [0, 1] in, logits of the data's labels out."""

    base: ImageClassifier
    prompt: VisualPrompt
    mapping: LabelMapping

    def read(self, images: Images, *, rng: torch.Generator | None = None) -> torch.Tensor:
        """The base's own logits, (batch, classes), of the prompted images; differentiable."""
        canvas = self.prompt.apply(images.to(self.base.device), rng=rng)
        if self.prompt.shape.form != "tokens":
            return self.base.read(canvas)
        with inserted(self.base, self.prompt.pixels.to(self.base.device)):
            return self.base.read(canvas)

    def logits(self, images: Images, *, rng: torch.Generator | None = None) -> torch.Tensor:
        """Logits, (batch, labels); differentiable. `rng` draws the places of a random patch."""
        return self.mapping(self.read(images, rng=rng))

    def detached(self) -> PromptedClassifier:
        """The same, with a prompt and a mapping that no gradient reaches."""
        mapping = self.mapping
        if mapping.weight is not None and mapping.bias is not None:
            mapping = replace(mapping, weight=mapping.weight.detach(), bias=mapping.bias.detach())
        prompt = VisualPrompt(shape=self.prompt.shape, pixels=self.prompt.pixels.detach())
        return PromptedClassifier(base=self.base, prompt=prompt, mapping=mapping)

    @torch.no_grad()
    def predict(self, images: Images) -> list[int]:
        """The label of every image."""
        found: list[int] = self.logits(images).argmax(dim=1).tolist()
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class LearnedPrompt:
    """A prompt that a provider hands over: pixels, label mapping, and the base that they were learned on.

    `label_names` are the labels of the customer's data. `accuracy` is that on validation images, which picked the
    epoch; None where nothing measured it. `settings` rebuilds the `method`. `planted` says what was planted, None for
    an honest prompt.
    """

    prompt: VisualPrompt
    mapping: LabelMapping
    base: BaseModel
    label_names: tuple[str, ...]
    accuracy: Interval | None = None
    method: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    measurements: dict[str, float] = field(default_factory=dict)
    planted: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.mapping.classes != len(self.base.class_names):
            raise DataError(
                f"the mapping reads {self.mapping.classes} classes, and {self.base.source} has "
                f"{len(self.base.class_names)}"
            )
        if self.mapping.labels != len(self.label_names):
            raise DataError(f"the mapping gives {self.mapping.labels} labels, and {len(self.label_names)} have names")
        if self.prompt.shape.image_size != self.base.image_size:
            raise DataError(
                f"the prompt is for {self.prompt.shape.image_size} pixels, and {self.base.source} sees "
                f"{self.base.image_size}"
            )

    def apply(self, images: Images, *, rng: torch.Generator | None = None) -> Images:
        """The prompted images, ready for the base; see `VisualPrompt.apply`."""
        return self.prompt.apply(images, rng=rng)

    def on(self, base: ImageClassifier | DualEncoder) -> PromptedClassifier:
        """The classifier of the labels that prompt and base make together. Raises `AdapterError` for another base."""
        classifier = base
        if isinstance(base, DualEncoder):
            if not self.base.templates:
                raise AdapterError(
                    f"the prompt was learned on the classifier {self.base.source}, not on a dual encoder"
                )
            classifier = ImageClassifier.of_dual(base, self.base.class_names, self.base.templates)
        assert isinstance(classifier, ImageClassifier)
        check_same_base(self.base, describe_base(classifier))
        return PromptedClassifier(base=classifier, prompt=self.prompt, mapping=self.mapping)


def check_same_base(fitted: BaseModel, here: BaseModel) -> None:
    """Raises `AdapterError`, with both names, where a prompt was learned on another base, or one read otherwise."""
    if fitted.sha256 != here.sha256:
        raise AdapterError(
            f"the prompt was learned on {_named(fitted)}, but the model is {_named(here)}; use {fitted.source}, or "
            f"learn a prompt for {here.source}"
        )
    reading = ("image_size", "mean", "std", "scale")
    for name in reading if fitted.templates else (*reading, "class_names"):
        ours, theirs = getattr(fitted, name), getattr(here, name)
        if ours != theirs:
            ours, theirs = (str(value)[:60] for value in (ours, theirs))
            raise AdapterError(
                f"the prompt was learned on {fitted.source} with {name} {ours}, but {here.source} has {theirs}; load "
                f"the model with its own image processor"
            )


def _named(base: BaseModel) -> str:
    revision = f" at {base.revision}" if base.revision else ""
    return f"{base.source}{revision} (weights {base.sha256[:12]})"
