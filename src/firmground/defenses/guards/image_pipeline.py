"""A Hugging Face pipeline for zero-shot image classification with a guard: same call, same results, and its flags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch

from firmground.data.decoding import to_rgb
from firmground.defenses.guards.fitted_images import FittedImageGuard
from firmground.defenses.guards.image_files import load_image_guard
from firmground.defenses.guards.pipeline import GuardedList
from firmground.errors import AdapterError
from firmground.models.dual import DualEncoder
from firmground.models.hashing import model_sha256
from firmground.models.preprocessing import parse_preprocessing

if TYPE_CHECKING:
    from firmground.types import Images

TASK = "zero-shot-image-classification"


class GuardedImagePipeline:
    """Wraps a `zero-shot-image-classification` pipeline, and is called as the pipeline is.

    Every result dictionary has one key more, `guard`: `flagged` and `score` (higher is more suspicious); the list of an
    image's results has it as an attribute too. Each image costs a second pass through the image tower. Raises
    `AdapterError` for another kind of pipeline, or where the guard was fitted on another encoder.
    """

    def __init__(self, pipeline: Any, guard: FittedImageGuard | str | Path) -> None:
        if pipeline.task != TASK:
            raise AdapterError(f"a guard of images stands before {TASK}, but the pipeline does {pipeline.task}")
        self.pipeline = pipeline
        if not isinstance(guard, FittedImageGuard):
            guard = load_image_guard(guard, encoder_of(pipeline))
        elif guard.model_sha256 != model_sha256(pipeline.model):
            raise AdapterError(f"the guard was fitted on {guard.base}, whose weights are not those of the pipeline")
        self.guard = guard

    @property
    def model(self) -> Any:
        return self.pipeline.model

    def __call__(self, images: Any, **options: Any) -> Any:
        """The pipeline's results for one image (a path, a URL, a picture) or a list of them."""
        from transformers.image_utils import load_image

        many = isinstance(images, list | tuple)
        loaded = [load_image(image) for image in (images if many else [images])]
        found = [
            self._guarded(image, result) for image, result in zip(loaded, self.pipeline(loaded, **options), strict=True)
        ]
        return found if many else found[0]

    def _guarded(self, image: Any, result: list[dict[str, Any]]) -> GuardedList:
        scores = self.guard.score(pixels(image)[None])
        flags = {"flagged": scores.flagged[0], "score": scores.values[0]}
        listed = GuardedList({**entry, "guard": flags} for entry in result)
        listed.guard = flags
        return listed


def encoder_of(pipeline: Any) -> DualEncoder:
    """The dual encoder inside a pipeline, with the pipeline's own preprocessing."""
    settings = pipeline.image_processor.to_dict()
    source = str(getattr(pipeline.model, "name_or_path", "") or "memory")
    try:
        preprocessing = parse_preprocessing(settings)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"the image processor of the pipeline cannot be read ({error})") from error
    return DualEncoder(pipeline.model, pipeline.tokenizer, preprocessing, source=source)


def pixels(picture: Any) -> Images:
    """A Pillow image as (3, height, width) float in [0, 1]."""
    return torch.from_numpy(numpy.array(to_rgb(picture))).permute(2, 0, 1).float() / 255
