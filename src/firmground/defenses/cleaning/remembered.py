"""Where an encoder at rest has the pairs of a set: embedded once, for all epochs of a training.

Pairs are taken in the set's order, so that a training that goes on after a kill finds the same bits again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.data.pairs import PairSet
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings


@torch.no_grad()
def images_of(encoder: DualEncoder, pairs: PairSet, batch_size: int) -> Embeddings:
    """Unit embeddings of all images, (pairs, width) float32 on the CPU; NaN where an image cannot be read."""
    encoder.model.eval()
    found = torch.empty(0)
    for batch in pairs.batches(batch_size):
        seen = encoder.embed_images(batch.images.to(encoder.device)).float().cpu()
        if not len(found):
            found = seen.new_full((len(pairs), seen.shape[1]), torch.nan)
        found[list(batch.rows)] = seen
    return found


@torch.no_grad()
def texts_of(encoder: DualEncoder, captions: Sequence[str], batch_size: int) -> Embeddings:
    """Unit embeddings of all captions, (captions, width) float32 on the CPU."""
    encoder.model.eval()
    starts = range(0, len(captions), batch_size)
    return torch.cat([encoder.embed_texts(captions[i : i + batch_size]).float().cpu() for i in starts])
