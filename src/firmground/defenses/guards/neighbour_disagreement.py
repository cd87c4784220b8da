"""Does an image lie among images of the class that the text tower gives it?

A poisoned encoder learned to move triggered images to the target's *caption*, not among the target's images: 50
nearest neighbours on image features hardly see a backdoor (ASR 0.03 to 0.6 per cent) to which zero-shot classification
falls every time. So where the two disagree, something is odd with the image. Ours, on that observation, which is from
the evaluation of RoCLIP and PAR (arXiv 2412.00727).

Features are the encoder's embeddings, or with `layer` the mean over the places of an earlier hidden state, which a
backdoor that acts late has not reached. The threshold comes from clean images alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.defenses.guards.fitted_images import FEWEST, FittedImageGuard, calibrated, judged, shuffled, text_means
from firmground.errors import DataError
from firmground.models.glances import pooled
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images


@dataclass(frozen=True, kw_only=True)
class NeighbourDisagreement:
    """Flags images whose zero-shot label is not that of their nearest clean images.

    The score is the probability of the zero-shot label less the share of the `k` nearest support images that bear it,
    -1 to 1. `support` is the share of the clean images that is searched, the rest calibrates; `layer` counts hidden
    states, 0 the first, None for the embedding; `flag_rate` is the share of clean images that may be flagged.
    """

    name: ClassVar[str] = "neighbour-disagreement"
    paper: ClassVar[str] = "ours, on what 50-NN sees of a backdoor (arXiv 2412.00727)"

    k: int = 50
    support: float = 0.5
    layer: int | None = None
    flag_rate: float = 0.02
    batch_size: int = 64

    def fit(
        self, encoder: DualEncoder, data: LabelledImages, *, rng: torch.Generator, watch: Watch = ignore
    ) -> FittedImageGuard:
        """Takes clean labelled images, at least `k` for the support and 40 to calibrate on."""
        if not 0 < self.support < 1 or self.k < 1:
            raise DataError(f"expected 0 < support < 1 and k >= 1, got support {self.support} and k {self.k}")
        fewest = max(-(-self.k // self.support), -(-FEWEST // (1 - self.support)))
        rows = shuffled(data, int(fewest), rng)
        held = rows[: int(self.support * len(rows) + 1e-9)]
        means = text_means(encoder, [[t.format(name) for t in data.templates] for name in data.label_names])
        classes = torch.nn.functional.normalize(means, dim=1)
        parts = []
        for start in range(0, len(held), self.batch_size):
            some = held[start : start + self.batch_size]
            parts.append(features(encoder, data.select(some).batch(0, len(some)), self.layer))
            watch(start + len(some), len(held), "embedding the support")
        bank = torch.cat(parts)
        labels = torch.tensor([data.labels[row] for row in held], device=encoder.device)
        shown = torch.nn.functional.one_hot(labels, len(data.label_names)).float()

        tensors = {"classes": classes, "bank": bank, "shown": shown}
        judge = self.judge(encoder, tensors)
        values = judged(data, rows[len(held) :], judge, batch_size=self.batch_size, watch=watch)
        return calibrated(self, encoder, data, values, tensors)

    def judge(self, encoder: DualEncoder, tensors: dict[str, torch.Tensor]) -> Callable[[Images], torch.Tensor]:
        """What scores images by `classes` (classes, width), `bank` (support, any) and `shown` (support, classes)."""
        classes, bank, shown = (tensors[name].to(encoder.device) for name in ("classes", "bank", "shown"))
        if classes.shape[1:] != (encoder.width,) or shown.shape != (len(bank), len(classes)) or len(bank) < self.k:
            raise DataError(f"a support of {len(bank)} images does not fit this encoder, or {self.k} neighbours")
        return lambda images: self._scores(encoder, images, classes, bank, shown)

    def _scores(
        self, encoder: DualEncoder, images: Images, classes: Embeddings, support: torch.Tensor, shown: torch.Tensor
    ) -> torch.Tensor:
        embedded = features(encoder, images, None)
        cosines = embedded @ classes.T
        believed, label = (float(encoder.logit_scale) * cosines).softmax(dim=1).max(dim=1)
        found = embedded if self.layer is None else features(encoder, images, self.layer)
        near = (found @ support.T).topk(self.k, dim=1).indices
        agreed = shown[near].mean(dim=1).gather(1, label[:, None])[:, 0]
        return (believed - agreed).cpu()


@torch.inference_mode()
def features(encoder: DualEncoder, images: Images, layer: int | None) -> torch.Tensor:
    """Unit image features, (batch, any width): the embedding, or the mean over the places of a hidden state."""
    shown = images.to(encoder.device)
    if layer is None:
        return encoder.embed_images(shown).float()
    return torch.nn.functional.normalize(pooled(encoder, shown, layer), dim=1)
