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
    from collections.abc import Callable

    from firmground.models.preprocessing import Preprocessing
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
        return answered(self.pipeline, images, options, self._flags)

    def _flags(self, image: Images) -> dict[str, Any]:
        scores = self.guard.score(image)
        return {"flagged": scores.flagged[0], "score": scores.values[0]}


def answered(pipeline: Any, images: Any, options: dict[str, Any], flags_of: Callable[[Images], dict[str, Any]]) -> Any:
    """What a pipeline of images says of one image or a list of them, each result with the `guard`'s flags.

    `flags_of` takes one image, (1, 3, height, width) in [0, 1].
    """
    from transformers.image_utils import load_image

    many = isinstance(images, list | tuple)
    loaded = [load_image(image) for image in (images if many else [images])]
    found = []
    for image, result in zip(loaded, pipeline(loaded, **options), strict=True):
        flags = flags_of(pixels(image)[None])
        listed = GuardedList({**entry, "guard": flags} for entry in result)
        listed.guard = flags
        found.append(listed)
    return found if many else found[0]


def encoder_of(pipeline: Any) -> DualEncoder:
    """The dual encoder inside a pipeline, with the pipeline's own preprocessing."""
    return DualEncoder(pipeline.model, pipeline.tokenizer, preprocessing_of(pipeline), source=source_of(pipeline))


def preprocessing_of(pipeline: Any) -> Preprocessing:
    """What a pipeline's own image processor does. Raises `AdapterError` where that cannot be read."""
    try:
        return parse_preprocessing(pipeline.image_processor.to_dict())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"the image processor of the pipeline cannot be read ({error})") from error


def source_of(pipeline: Any) -> str:
    """Where a pipeline's model came from."""
    return str(getattr(pipeline.model, "name_or_path", "") or "memory")


def pixels(picture: Any) -> Images:
    """A Pillow image as (3, height, width) float in [0, 1]."""
    return torch.from_numpy(numpy.array(to_rgb(picture))).permute(2, 0, 1).float() / 255
