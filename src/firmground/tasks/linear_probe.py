"""A linear probe: logistic regression on the frozen image embeddings (scikit-learn's), clean and under a trigger.

The probe is trained on clean images. A backdoor that pulls triggered images towards a caption, and not towards images
of the target class, shows less here than in zero-shot classification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from firmground.errors import DataError
from firmground.tasks.image_classification import clean_batches
from firmground.tasks.image_classification import evaluate as evaluate_classifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.dual import DualEncoder
    from firmground.tasks.image_classification import ImageResult, Stamped
    from firmground.types import Images


def evaluate(
    encoder: DualEncoder,
    train: LabelledImages,
    test: LabelledImages,
    *,
    stamped: Stamped | None = None,
    target: int | None = None,
    inverse_penalty: float = 10.0,
    batch_size: int = 64,
) -> ImageResult:
    """CA, accuracy on triggered images and both ASRs of a probe that is fitted to `train` and measured on `test`.

    `stamped` and `target` are as in `image_classification.evaluate`. Raises `DataError` where the classes differ.
    """
    if train.label_names != test.label_names:
        raise DataError(f"the probe is trained on {train.label_names} and tested on {test.label_names}")
    predict = fit(encoder, train, inverse_penalty=inverse_penalty, batch_size=batch_size)
    return evaluate_classifier(predict, test, stamped=stamped, target=target, batch_size=batch_size)


def fit(
    encoder: DualEncoder, data: LabelledImages, *, inverse_penalty: float = 10.0, batch_size: int = 64
) -> Callable[[Images], list[int]]:
    """A `predict` by logistic regression; `inverse_penalty` is scikit-learn's C. `DataError` for a set of one class."""
    from sklearn.linear_model import LogisticRegression

    if len(set(data.labels)) < 2:
        raise DataError("a probe needs images of at least two classes to be trained on, got those of one")

    @torch.no_grad()
    def features(images: Images) -> torch.Tensor:
        return encoder.embed_images(images.to(encoder.device)).double().cpu()

    rows = torch.cat([features(images) for images in clean_batches(data, batch_size)])
    probe = LogisticRegression(C=inverse_penalty, max_iter=10_000).fit(rows.numpy(), list(data.labels))

    def predict(images: Images) -> list[int]:
        return [int(label) for label in probe.predict(features(images).numpy())]

    return predict
