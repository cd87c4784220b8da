"""What scans of visual prompts share: how the search for patterns reads them, patches, and a prompt of one's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from firmground.errors import DataError
from firmground.prompts.learning import learn
from firmground.prompts.prompted import PromptedClassifier
from firmground.prompts.visual_prompting import VisualPrompting, split_rows

if TYPE_CHECKING:
    from firmground.data.labelled_images import LabelledImages
    from firmground.types import Images, Watch

WEAK = (  # a doubt of every verdict on a visual prompt
    "no scan told backdoored visual prompts from honest ones reliably in the study prompt-defence (AUROC up to 0.73); "
    "guard the images too"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Behind:
    """Classifiers of the same labels behind prompts of one shape; what they are shown, a pattern is put on before."""

    classifiers: tuple[PromptedClassifier, ...]

    @property
    def image_size(self) -> int:
        """The side of what the prompt leaves to the image."""
        return self.classifiers[0].prompt.shape.inner

    @property
    def device(self) -> torch.device:
        return self.classifiers[0].base.device

    def embed_images(self, images: Images) -> torch.Tensor:
        """The logits of all classifiers side by side, (batch, classifiers * labels)."""
        return torch.cat([classifier.logits(images) for classifier in self.classifiers], dim=1)


def check_labels(prompted: PromptedClassifier, data: LabelledImages) -> None:
    """Raises `DataError` where the images are not of the prompt's labels."""
    if len(data.label_names) != prompted.mapping.labels:
        raise DataError(
            f"the prompt gives {prompted.mapping.labels} labels, and the images have {len(data.label_names)}; give "
            f"clean images of the prompt's own labels"
        )


def own_prompt(
    prompted: PromptedClassifier,
    data: LabelledImages,
    *,
    epochs: int,
    step_size: float,
    batch_size: int,
    rng: torch.Generator,
    watch: Watch,
) -> PromptedClassifier:
    """The same base behind a prompt of the same shape that is learned here, from nothing, on clean images."""
    shape = prompted.prompt.shape
    how = VisualPrompting(
        form=shape.form,
        mapping=prompted.mapping.kind,
        epochs=epochs,
        batch_size=batch_size,
        step_size=step_size,
        mapping_step_size=step_size / 10,
    )
    rest, held = split_rows(data, how.validation, rng)
    found = learn(prompted.base, data.select(rest), how, shape, rng=rng, watch=watch, held=data.select(held))
    return replace(prompted, prompt=found.prompt, mapping=found.mapping)


def patch_at(images: Images, patch: torch.Tensor, row: float, column: float) -> Images:
    """Images with a patch, (3, side, side), at a place: 0 is the first edge, 1 the last."""
    side, room = patch.shape[-1], images.shape[-1] - patch.shape[-1]
    top, left = round(row * room), round(column * room)
    stamped = images.clone()
    stamped[..., top : top + side, left : left + side] = patch.to(images)
    return stamped
