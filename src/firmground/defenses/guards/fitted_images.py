"""A guard in front of a dual encoder's image tower, and its threshold, which knows clean images only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from firmground.errors import DataError
from firmground.intervals import wilson
from firmground.types import Interval, Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images, Watch

FEWEST = 40  # clean images: half set the threshold, half measure how many of their like it flags


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedImageGuard:
    """Scores images as they come; `false_flags` is the share of unseen clean images above `threshold`."""

    method: str
    threshold: float
    false_flags: Interval
    judge: Callable[[Images], torch.Tensor]
    settings: dict[str, Any] = field(default_factory=dict)

    def score(self, images: Images) -> Scores:
        """Scores of a batch, (batch, 3, height, width) in [0, 1] of any size: higher is more suspicious."""
        with torch.inference_mode():
            values = self.judge(images)
        return Scores(values=tuple(values.double().tolist()), threshold=self.threshold)


@torch.inference_mode()
def judged(
    data: LabelledImages,
    rows: Sequence[int],
    judge: Callable[[Images], torch.Tensor],
    *,
    batch_size: int,
    watch: Watch,
) -> torch.Tensor:
    """What `judge` gives the images of these rows, (rows,), batch by batch."""
    values = []
    for start in range(0, len(rows), batch_size):
        some = list(rows[start : start + batch_size])
        values.append(judge(data.select(some).batch(0, len(some))).cpu())
        watch(start + len(some), len(rows), "calibrating on clean images")
    return torch.cat(values)


def calibrated(
    method: Any, values: torch.Tensor, judge: Callable[[Images], torch.Tensor], *, settings: dict[str, Any]
) -> FittedImageGuard:
    """The guard whose threshold lets all but `method.flag_rate` of every other of the clean scores, (rows,), pass.

    The false-flag rate, with Wilson's interval, is measured on the rows in between, which did not set it.
    """
    seen, unseen = values.double()[::2], values.double()[1::2]
    threshold = float(seen.quantile(1 - method.flag_rate))
    hits = int((unseen > threshold).sum())
    return FittedImageGuard(
        method=method.name,
        threshold=threshold,
        false_flags=wilson(hits, len(unseen)),
        judge=judge,
        settings=settings,
    )


def shuffled(data: LabelledImages, fewest: int, rng: torch.Generator) -> list[int]:
    """All rows in the order that `rng` draws. Raises `DataError` for fewer than `fewest`."""
    if len(data) < fewest:
        raise DataError(f"fitting needs at least {fewest} clean images, got {len(data)}; give more")
    return torch.randperm(len(data), generator=rng).tolist()


@torch.inference_mode()
def text_means(encoder: DualEncoder, texts: Sequence[Sequence[str]]) -> Embeddings:
    """The mean of the unit embeddings of each group of texts, (groups, width)."""
    return torch.stack([torch.cat(list(_parts(encoder, group))).mean(dim=0) for group in texts])


def _parts(encoder: DualEncoder, texts: Sequence[str], batch_size: int = 256) -> Iterator[Embeddings]:
    for start in range(0, len(texts), batch_size):
        yield encoder.embed_texts(texts[start : start + batch_size]).float()
