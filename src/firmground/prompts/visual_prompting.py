"""Visual prompting: a provider learns pixels and a label mapping for a customer's images; the model stays frozen.

Bahng et al., "Exploring Visual Prompts for Adapting Large-Scale Models", 2022 (arXiv 2203.17274), with what came after:
valid pixels, Adam and iterated mapping of ILM-VP (Chen et al., CVPR 2023, arXiv 2211.11635), a fully connected or
semantic mapping and a trainable resize of AutoVP (Tsao et al., ICLR 2024, arXiv 2310.08381), TrivialAugment as in
ACAVP. Departs from all: the epoch is picked on validation images that are held out of the customer's data; see
`learning` for the count matrix, and `resizing`.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from firmground.errors import DataError
from firmground.models.augmentation import Augmentation
from firmground.models.classifiers import ImageClassifier
from firmground.models.dual import DualEncoder
from firmground.prompts.learning import learn
from firmground.prompts.mappings import KINDS, MappingKind
from firmground.prompts.prompted import LearnedPrompt, describe_base
from firmground.prompts.resizing import learned_width
from firmground.prompts.tokens import blocks_of, width_of
from firmground.prompts.visual import Corner, Form, PromptShape
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.data.labelled_images import LabelledImages
    from firmground.prompts.learning import Addition


@dataclass(frozen=True, kw_only=True)
class VisualPrompting:
    """Learns a visual prompt. `width` of a padding and `side` of a patch are shares of the canvas.

    With `resize` a padding's width is only where a search begins, which learns how large the image stands inside.
    Of the form tokens, for vision transformers, there are `tokens` vectors in the first layer, or if `deep` in each.

    `mapping` is index, frequency, iterated, semantic (dual encoders only) or fully-connected; a dual encoder's classes
    are the data's own label names, so that index is the identity there. `augmentation` is none, trivial, auto or
    random; `validation` is the share of the images that picks the epoch; `precision` is float32 or bfloat16.
    """

    name: ClassVar[str] = "visual-prompting"
    paper: ClassVar[str] = "Bahng et al., 2022 (arXiv 2203.17274), with ILM-VP (CVPR 2023, arXiv 2211.11635)"

    form: Form = "padding"
    width: float = 30 / 224
    resize: bool = False
    side: float = 64 / 224
    place: Corner = "top-left"
    tokens: int = 10
    deep: bool = False
    mapping: MappingKind = "iterated"
    epochs: int = 10
    batch_size: int = 64
    step_size: float = 0.05
    mapping_step_size: float = 1e-3
    augmentation: Augmentation = "none"
    validation: float = 0.2
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise DataError(f"epochs and batch_size must be 1 or more, got {self.epochs} and {self.batch_size}")
        if not (0 < self.step_size < math.inf and 0 < self.mapping_step_size < math.inf):
            raise DataError(f"step sizes must be positive, got {self.step_size} and {self.mapping_step_size}")
        if not (0 < self.width < 0.5 and 0 < self.side <= 1):
            raise DataError(
                f"expected the width of a padding as a share of the canvas below 0.5, and the side of a patch as one "
                f"of at most 1, got {self.width} and {self.side}"
            )
        if not 0 < self.validation < 1:
            raise DataError(f"the share of validation images must lie between 0 and 1, got {self.validation}")
        if self.resize and self.form != "padding":
            raise DataError(f"only inside a padding can images be resized, got the form {self.form!r} with resize")
        if self.mapping not in KINDS:
            raise DataError(f"expected a label mapping among {', '.join(KINDS)}, got {self.mapping!r}")
        if self.precision not in ("float32", "bfloat16"):
            raise DataError(f"expected the precision float32 or bfloat16, got {self.precision!r}")

    def fit(
        self,
        base: ImageClassifier | DualEncoder,
        data: LabelledImages,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
        resume: Path | None = None,
    ) -> LearnedPrompt:
        """Learns a prompt for `data` on a frozen base, which stays as it was.

        `resume` is a folder of checkpoints, one an epoch, from which a killed run goes on. Raises `DataError` for a
        class without images or too few images.
        """
        classifier = classifier_for(base, data)
        rest, held = split_rows(data, self.validation, rng)
        train, check = data.select(rest), data.select(held)
        shape = self.shape(classifier)
        if self.resize:
            shape = replace(shape, width=learned_width(classifier, train, self, rng=rng, watch=watch))
        return learned(self, classifier, train, check, rng=rng, watch=watch, resume=resume, shape=shape)

    def shape(self, base: ImageClassifier) -> PromptShape:
        """Where the prompt stands on a base's canvas; shares are rounded, to one pixel at least.

        Raises `UnsupportedModelError` for tokens on what is no vision transformer.
        """
        image_size = base.image_size
        if self.form == "tokens":
            layers, channels = len(blocks_of(base)) if self.deep else 1, width_of(base)
            return PromptShape(
                form=self.form, image_size=image_size, count=self.tokens, layers=layers, channels=channels
            )
        width, side = (max(1, round(share * image_size)) for share in (self.width, self.side))
        patch = self.form.endswith("patch")
        return PromptShape(
            form=self.form,
            image_size=image_size,
            width=width if self.form == "padding" else 0,
            side=side if patch else 0,
            place=self.place if self.form == "fixed-patch" else "top-left",
        )


def learned(
    how: VisualPrompting,
    base: ImageClassifier,
    train: LabelledImages,
    held: LabelledImages,
    *,
    rng: torch.Generator,
    watch: Watch,
    resume: Path | None = None,
    addition: Addition | None = None,
    shape: PromptShape | None = None,
) -> LearnedPrompt:
    """Runs the loop as `how` says, which `held` picks the epoch of, and puts together what is handed over."""
    begun = time.perf_counter()
    outcome = learn(
        base, train, how, shape or how.shape(base),
        rng=rng, watch=watch, resume=resume, held=held, addition=addition,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    return LearnedPrompt(
        prompt=outcome.prompt,
        mapping=outcome.mapping,
        base=describe_base(base),
        label_names=train.label_names,
        accuracy=outcome.accuracy,
        method=how.name,
        settings=asdict(how),
        measurements={
            "best_epoch": float(outcome.epoch),
            "steps": float(outcome.steps),
            "train_images": float(len(train)),
            "seconds": seconds,
            **{f"loss_{name}": value for name, value in outcome.losses.items()},
        },
    )


def classifier_for(base: ImageClassifier | DualEncoder, data: LabelledImages) -> ImageClassifier:
    """The base as a classifier; a dual encoder's classes are the data's, by its templates."""
    if isinstance(base, DualEncoder):
        return ImageClassifier.of_dual(base, data.label_names, data.templates)
    return base


def split_rows(data: LabelledImages, share: float, rng: torch.Generator) -> tuple[list[int], list[int]]:
    """Rows of (the rest, `share` of all), drawn label by label. Raises `DataError` for classes of one or none."""
    rest: list[int] = []
    held: list[int] = []
    for label, name in enumerate(data.label_names):
        rows = [row for row, other in enumerate(data.labels) if other == label]
        if len(rows) < 2:
            raise DataError(
                f"the class {name!r} has {len(rows)} images and needs two, one to learn from and one to validate on; "
                f"add some, or leave the class out"
            )
        order = [rows[i] for i in torch.randperm(len(rows), generator=rng).tolist()]
        cut = min(max(round(share * len(order)), 1), len(order) - 1)
        held += order[:cut]
        rest += order[cut:]
    return sorted(rest), sorted(held)
