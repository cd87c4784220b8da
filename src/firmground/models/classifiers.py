"""One adapter for every frozen image classifier: images in [0, 1] in, logits out, gradients through to the images.

A classifier is a Hugging Face image-classification model, a torch module with its count of classes, or a dual encoder
with the classes as texts. Beside images of any size it takes a *canvas*: an image that already has the model's own size
and is only normalised, so that nothing crops away what stands at its edge, such as a visual prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from firmground.errors import DataError, UnsupportedModelError
from firmground.models.hashing import model_sha256
from firmground.models.loading import resolve
from firmground.models.loading_classifier import load_classifier_parts
from firmground.models.preprocessing import Preprocessing, check_images

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from firmground.models.dual import DualEncoder
    from firmground.types import Images

TEXTS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageClassifier:
    """A frozen classifier. `module` takes what `preprocessing` gives; `weights` is the part that identifies the model.

    `class_names` are the model's own classes, in the order of its logits. `encoder` and `templates` are those of a dual
    encoder whose classes are texts. `source` names where the model came from.
    """

    module: torch.nn.Module
    weights: torch.nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    source: str = "memory"
    revision: str | None = None
    encoder: DualEncoder | None = None
    templates: tuple[str, ...] = ()

    @classmethod
    def load(
        cls, source: str | Path, *, revision: str | None = None, dtype: torch.dtype = torch.float32
    ) -> ImageClassifier:
        """Loads a Hugging Face image-classification model from a directory or hub id; runs nothing of its files.

        Raises `UnsafeModelError`, `UnsupportedModelError` or `BrokenModelError`.
        """
        parts = load_classifier_parts(resolve(str(source), revision=revision), dtype=dtype)
        return cls.of_module(parts.model, parts.class_names, parts.preprocessing, source=str(source), revision=revision)

    @classmethod
    def of_module(
        cls,
        module: torch.nn.Module,
        classes: int | Sequence[str],
        preprocessing: Preprocessing,
        *,
        source: str = "memory",
        revision: str | None = None,
    ) -> ImageClassifier:
        """A torch module that gives logits, (batch, classes), or an output that has them as `logits`.

        `classes` is how many there are, or their names. The module is frozen in place. Raises `UnsupportedModelError`
        where it gives something else.
        """
        names = tuple(f"class {i}" for i in range(classes)) if isinstance(classes, int) else tuple(map(str, classes))
        if len(names) < 2:
            raise DataError(f"a classifier needs at least two classes, got {len(names)}; say how many logits it gives")
        module.eval().requires_grad_(False)
        found = cls(
            module=module,
            weights=module,
            preprocessing=preprocessing,
            class_names=names,
            source=source,
            revision=revision,
        )
        with torch.no_grad():  # one look before a long training
            found.read(torch.full((1, 3, found.image_size, found.image_size), 0.5, device=found.device))
        return found

    @classmethod
    def of_dual(
        cls, encoder: DualEncoder, class_names: Sequence[str], templates: Sequence[str] = ("a photo of a {}",)
    ) -> ImageClassifier:
        """A dual encoder whose classes are texts: the mean embedding of every template filled with a class's name."""
        if len(class_names) < 2:
            raise DataError(f"a classifier needs at least two classes, got {list(class_names)}")
        if not templates or any("{}" not in template for template in templates):
            raise DataError(f"each template needs a {{}} for the name of a class, got {list(templates)}")
        module = _Texts(encoder, embed_names(encoder, class_names, templates))
        return cls(
            module=module,
            weights=encoder.model,
            preprocessing=encoder.preprocessing,
            class_names=tuple(class_names),
            source=encoder.source,
            revision=encoder.revision,
            encoder=encoder,
            templates=tuple(templates),
        )

    @property
    def image_size(self) -> int:
        """The side, in pixels, of the square that the model sees."""
        return self.preprocessing.size

    @cached_property
    def sha256(self) -> str:
        """The hash of the weights in memory; see `hashing.model_sha256`."""
        return model_sha256(self.weights)

    @property
    def device(self) -> torch.device:
        return next((value.device for value in self.weights.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        kinds = (value.dtype for value in self.weights.parameters() if value.is_floating_point())
        return next(kinds, torch.float32)

    def logits(self, images: Images) -> torch.Tensor:
        """Logits, (batch, classes) in float32, of images in [0, 1] of any size, resized and cropped as the model's."""
        return self._logits(self.preprocessing(images))

    def read(self, canvas: Images) -> torch.Tensor:
        """The same of a canvas, (batch, 3, image_size, image_size) in [0, 1], which is normalised and nothing else."""
        check_images(canvas)
        size = self.image_size
        if canvas.shape[-2:] != (size, size):
            raise DataError(f"expected a canvas of {size} x {size} pixels, got {canvas.shape[-2]} x {canvas.shape[-1]}")
        return self._logits(replace(self.preprocessing, resize=(size, size))(canvas))

    def _logits(self, pixels: torch.Tensor) -> torch.Tensor:
        given = self.module(pixels.to(self.dtype))
        logits = given if isinstance(given, torch.Tensor) else getattr(given, "logits", None)
        wanted = (len(pixels), len(self.class_names))
        if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != wanted:
            came = type(given).__name__ if not isinstance(logits, torch.Tensor) else f"shape {tuple(logits.shape)}"
            raise UnsupportedModelError(
                f"{self.source} must give logits of shape {wanted} (images, classes), but gave {came}; pass a "
                f"classifier, and as many classes as it has"
            )
        return logits.float()


class _Texts(torch.nn.Module):
    """An image tower with one embedding a class."""

    def __init__(self, encoder: DualEncoder, classes: torch.Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.classes = classes

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        embedded = self.encoder.embed_pixels(pixels)
        return self.encoder.logit_scale * embedded @ self.classes.T + self.encoder.logit_bias


@torch.no_grad()
def embed_names(encoder: DualEncoder, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """One unit embedding a name, (names, width): the mean over the templates filled with it."""
    texts = [template.format(name) for name in names for template in templates]
    parts = [encoder.embed_texts(texts[i : i + TEXTS_AT_ONCE]) for i in range(0, len(texts), TEXTS_AT_ONCE)]
    means = torch.cat(parts).view(len(names), len(templates), -1).mean(dim=1)
    return torch.nn.functional.normalize(means, dim=1)
