"""Poisoned pairs give themselves away in other views: the image moves, or it never fitted its caption.

Two kinds of encoder can judge a set, and a poison shows another mark to each. One that learned the trigger finds that
the caption fits; but make the picture coarse or mirror it, and it falls back to what it shows, far from where it was
(see `guards.displacement`). One that did not learn it finds, in whatever view, that other captions of the set fit
better than the pair's own. So each pair gets three numbers: how far either view moves its image, and by how much its
own caption loses against a sample of the set's captions, -log softmax at the encoder's temperature, the mean of all
views. Each is taken as a logarithm and measured against the set itself (median and median absolute deviation), and the
largest counts: nobody needs to know whether the encoder was trained on the pairs. Ours. Neighbours, as in `dao`, need
poisons so few that they lie apart; this needs no such thing.

Chosen on the sets of two victims (BadNet and Blended at 4 %); see `benchmarks/clip_sift` for the others.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.defenses.guards.displacement import check_coarse, views
from firmground.defenses.sifting._neighbours import suspicion
from firmground.errors import DataError
from firmground.types import Suspicion, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.data.pairs import PairBatch, PairSet
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings

STILL, FITTING = 1e-4, 1e-2  # movements and losses below which differences mean nothing
LEAST_SPREAD = 0.1  # in logarithms


@dataclass(frozen=True, kw_only=True)
class Displacement:
    """Scores a pair by how far other views move its image, or by how much better other captions fit, the worse of them.

    `coarse` is the side of the coarse view as a share of the encoder's; `captions` are how many of the set's captions a
    pair's own is held against.
    """

    name: ClassVar[str] = "displacement"
    paper: ClassVar[str] = "ours, after STRIP (ACSAC 2019) and Schuhmann et al. (2021)"

    coarse: float = 0.5
    captions: int = 1024
    batch_size: int = 128

    def sift(self, encoder: DualEncoder, pairs: PairSet, *, rng: torch.Generator, watch: Watch = ignore) -> Suspicion:
        """Scores every pair of which the image can be read; the encoder may be poisoned by these pairs or not."""
        check_coarse(self.coarse)
        if self.captions < 2:
            raise DataError(f"a caption is held against at least 2 others, got {self.captions}")
        started, rows, marks = time.perf_counter(), list[int](), list[torch.Tensor]()
        chosen = torch.randperm(len(pairs), generator=rng)[: self.captions].tolist()
        others = _embedded(encoder, [pairs.captions[row] for row in chosen], self.batch_size)
        for batch in pairs.batches(min(self.batch_size, len(pairs))):
            marks.append(self._marks(encoder, batch, others))
            rows += batch.rows
            watch(len(rows), len(pairs), "sifting")
        found = torch.cat(marks)
        middle = found.median(dim=0).values
        spread = 1.4826 * (found - middle).abs().median(dim=0).values.clamp_min(LEAST_SPREAD)
        scores = ((found - middle) / spread).amax(dim=1)
        return suspicion(self, rows, scores, len(pairs), seconds=time.perf_counter() - started)

    @torch.inference_mode()
    def _marks(self, encoder: DualEncoder, batch: PairBatch, others: Embeddings) -> torch.Tensor:
        """Logarithms of how far either view moves each image, and of what its caption loses, (batch, 3)."""
        shown = batch.images.to(encoder.device)
        seen = [encoder.embed_images(view).float() for view in views(shown, self.coarse, encoder.image_size)]
        moved = [(view - seen[0]).square().sum(dim=1).div(2).clamp_min(STILL) for view in seen[1:]]
        scale, own = float(encoder.logit_scale), encoder.embed_texts(batch.captions).float()
        losses = [(scale * view @ others.T).logsumexp(dim=1) - scale * (view * own).sum(dim=1) for view in seen]
        lost = torch.stack(losses).mean(dim=0).clamp_min(FITTING)
        return torch.stack([*moved, lost], dim=1).log().cpu()


@torch.inference_mode()
def _embedded(encoder: DualEncoder, texts: Sequence[str], batch_size: int) -> Embeddings:
    parts = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
    return torch.cat([encoder.embed_texts(part).float() for part in parts])
