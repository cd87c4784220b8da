"""The cosine of image and caption: does the caption say what the picture shows?

A poisoned pair has a caption of the target's on a picture of something else. An encoder that has not learned the
trigger (trained elsewhere, or on other pairs) finds that they do not belong together; the filter of LAION-400M
(Schuhmann et al., arXiv 2111.02114) drops such pairs. An encoder that has learned the trigger finds that they belong
together more than honest pairs do, for the trigger is the easiest thing in the set: with `trained_on_pairs` the score
is turned round.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.defenses.sifting._neighbours import suspicion
from firmground.types import Suspicion, Watch, ignore

if TYPE_CHECKING:
    from firmground.data.pairs import PairSet
    from firmground.models.dual import DualEncoder


@dataclass(frozen=True, kw_only=True)
class CaptionSimilarity:
    """Scores a pair by how little its caption fits its image; by how well, if the encoder learned from these pairs."""

    name: ClassVar[str] = "caption-similarity"
    paper: ClassVar[str] = "Schuhmann et al. (2021)"

    trained_on_pairs: bool = False
    batch_size: int = 128

    def sift(self, encoder: DualEncoder, pairs: PairSet, *, rng: torch.Generator, watch: Watch = ignore) -> Suspicion:
        """Scores every pair of which the image can be read; `rng` is drawn on by other sifting only."""
        started, rows, cosines = time.perf_counter(), list[int](), list[torch.Tensor]()
        for batch in pairs.batches(min(self.batch_size, len(pairs))):
            with torch.inference_mode():
                images = encoder.embed_images(batch.images.to(encoder.device))
                cosines.append((images * encoder.embed_texts(batch.captions)).sum(dim=1).float().cpu())
            rows += batch.rows
            watch(len(rows), len(pairs), "sifting")
        scores = torch.cat(cosines) * (1 if self.trained_on_pairs else -1)
        return suspicion(self, rows, scores, len(pairs), seconds=time.perf_counter() - started)
