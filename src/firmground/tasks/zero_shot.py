"""Zero-shot classification by a dual encoder: an image is of the class whose ensemble of prompts it is nearest to.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021: the embeddings of a
class's prompts are averaged and brought to length one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from firmground.errors import DataError
from firmground.tasks.image_classification import evaluate as evaluate_classifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.dual import DualEncoder
    from firmground.tasks.image_classification import ImageResult, Stamped
    from firmground.types import Embeddings, Images


def evaluate(
    encoder: DualEncoder,
    data: LabelledImages,
    *,
    templates: Sequence[str] | None = None,
    stamped: Stamped | None = None,
    target: int | None = None,
    batch_size: int = 64,
) -> ImageResult:
    """CA, accuracy on triggered images and both ASRs of zero-shot classification; see `image_classification.evaluate`.

    `templates` are the data's own unless others are given.
    """
    predict = classifier(encoder, data.label_names, data.templates if templates is None else templates)
    return evaluate_classifier(predict, data, stamped=stamped, target=target, batch_size=batch_size)


def classifier(
    encoder: DualEncoder, label_names: Sequence[str], templates: Sequence[str]
) -> Callable[[Images], list[int]]:
    """A `predict` that gives each image the label of the nearest class."""
    classes = class_embeddings(encoder, label_names, templates)

    @torch.no_grad()
    def predict(images: Images) -> list[int]:
        found = encoder.embed_images(images.to(encoder.device)) @ classes.T
        return found.argmax(dim=1).tolist()

    return predict


@torch.no_grad()
def class_embeddings(
    encoder: DualEncoder, label_names: Sequence[str], templates: Sequence[str], *, batch_size: int = 256
) -> Embeddings:
    """One unit embedding a class, (classes, width): the mean over the templates filled with its name.

    Raises `DataError` for fewer than two classes, no template, or one without a place for the name.
    """
    if len(label_names) < 2:
        raise DataError(f"zero-shot classification needs at least two classes, got {list(label_names)}")
    if not templates or any("{}" not in template for template in templates):
        raise DataError(f"each template needs a {{}} for the name of a class, got {list(templates)}")
    prompts = [template.format(name) for name in label_names for template in templates]
    parts = [encoder.embed_texts(prompts[i : i + batch_size]) for i in range(0, len(prompts), batch_size)]
    means = torch.cat(parts).view(len(label_names), len(templates), -1).mean(dim=1)
    return torch.nn.functional.normalize(means, dim=1)
