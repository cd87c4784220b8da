"""Poisoned pairs give themselves away: the image moves and stands on its own ground, or it never fitted its caption.

Two kinds of encoder can judge a set, and a poison shows another mark to each. One that learned the trigger finds that
the caption fits; but make the picture coarse or mirror it, and it falls back to what it shows, far from where it was
(see `guards.displacement`), and the tower's last hidden state is not one of clean images (see `guards.mahalanobis`,
after Lee et al., NeurIPS 2018). One that did not learn it finds, in whatever view, that the image is unlike its caption
(Schuhmann et al., "LAION-400M", 2021, filter by this likeness in one view). So each pair gets four marks: how unlike
image and caption are, the mean of all views; how far either view moves the image; and how far its state lies from the
law of the set's least suspicious quarter, by the first three marks, so that poisons have no part in the law. Each is
measured against the set itself: 0 at the median, 1 where a tenth lies above. A pair is as suspicious as it is unlike
its caption, or as the mean of how far it moves and how far off it stands, whichever is more; nobody needs to know
whether the encoder was trained on the pairs. Ours. Neighbours, as in `dao`, need poisons so few that they lie apart;
this needs no such thing.

Chosen on sets of BadNet and Blended (4 and 0.5 %, judged by their own and by a foreign encoder) and text (4 %), by
other pairs of theirs than those that `benchmarks/clip_sift` sifts; the other triggers there had no say. BadCLIP's
optimised patch survives both views, so its poisons are among the least suspicious and make the law: an encoder that
learned it does not find them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.defenses.guards.displacement import check_coarse, views
from firmground.defenses.guards.mahalanobis import distances, held_out, law
from firmground.defenses.sifting._neighbours import suspicion
from firmground.errors import DataError
from firmground.models.glances import glance
from firmground.types import Suspicion, Watch, ignore

if TYPE_CHECKING:
    from firmground.data.pairs import PairBatch, PairSet
    from firmground.models.dual import DualEncoder

STILL = 1e-4  # a movement below which differences mean nothing
LEAST = (1e-3, 0.1, 0.1, 1e-2)  # what counts as a difference, of each mark: the last three are logarithms
TAIL = 0.9  # the quantile that is 1
FEWEST, QUARTER, FOLDS, LAST = 16, 4, 5, -1


@dataclass(frozen=True, kw_only=True)
class Displacement:
    """Scores a pair by how unlike its caption the image is, or by how it moves and stands apart, the worse of them.

    `coarse` is the side of the coarse view as a share of the encoder's; `sample` are how many pairs, drawn, the law of
    hidden states is made from: so many states are held at once.
    """

    name: ClassVar[str] = "displacement"
    paper: ClassVar[str] = "ours, after STRIP (ACSAC 2019), Lee et al. (NeurIPS 2018) and Schuhmann et al. (2021)"

    coarse: float = 0.5
    sample: int = 8192
    batch_size: int = 128

    def sift(self, encoder: DualEncoder, pairs: PairSet, *, rng: torch.Generator, watch: Watch = ignore) -> Suspicion:
        """Scores every pair of which the image can be read; the encoder may be poisoned by these pairs or not."""
        check_coarse(self.coarse)
        if self.sample < FEWEST:
            raise DataError(f"the law of hidden states needs a sample of at least {FEWEST}, got {self.sample}")
        started, rows = time.perf_counter(), list[int]()
        marks, states, apart = list[torch.Tensor](), list[torch.Tensor](), list[torch.Tensor]()
        firm: dict[str, torch.Tensor] = {}
        for batch in pairs.batches(min(self.batch_size, len(pairs)), rng):
            mark, state = self._seen(encoder, batch)
            marks.append(mark)
            states.append(state)
            rows += batch.rows
            if not firm and len(rows) >= self.sample:
                firm, first = _ground(torch.cat(marks), torch.cat(states))
                apart.append(first)
            elif firm:
                apart.append(distances(states.pop(), **firm))
            watch(len(rows), len(pairs), "sifting")
        if len(rows) < FEWEST:
            raise DataError(f"sifting by displacement needs at least {FEWEST} images, got {len(rows)}; give more")
        found = torch.cat(marks)
        far = torch.cat(apart) if firm else _ground(found, torch.cat(states))[1]
        scores = _scores(torch.cat([found, far.log()[:, None]], dim=1))
        return suspicion(self, rows, scores, len(pairs), seconds=time.perf_counter() - started)

    @torch.inference_mode()
    def _seen(self, encoder: DualEncoder, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Three marks, (batch, 3), and the last hidden state, (batch, width).

        The marks: how unlike image and caption are, and the logarithms of how far either view moves the image.
        """
        bare, *others = views(batch.images.to(encoder.device), self.coarse, encoder.image_size)
        own = glance(encoder, bare, LAST)
        seen = [own.embeddings, *(encoder.embed_images(view).float() for view in others)]
        moved = [(view - seen[0]).square().sum(dim=1).div(2).clamp_min(STILL).log() for view in seen[1:]]
        told = encoder.embed_texts(batch.captions).float()
        likeness = torch.stack([(view * told).sum(dim=1) for view in seen]).mean(dim=0)
        return torch.stack([1 - likeness, *moved], dim=1).cpu(), own.state.cpu()


def _ground(marks: torch.Tensor, states: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The law of the states, (count, width), of the quarter that `marks`, (count, 3), suspect least, and distances.

    Those of the quarter are held against the law of others of it, as they would lie closer to one that they made.
    """
    least = _scaled(marks).amax(dim=1).argsort(stable=True)[: max(2, len(marks) // QUARTER)]
    firm = law(states[least])
    apart = distances(states, **firm)
    apart[least] = held_out(states[least], min(FOLDS, len(least)))
    return firm, apart


def _scores(marks: torch.Tensor) -> torch.Tensor:
    """The scores, (count,), of all four marks, (count, 4)."""
    unlike, coarse, mirrored, apart = _scaled(marks).unbind(dim=1)
    return torch.maximum(unlike, (torch.maximum(coarse, mirrored) + apart) / 2)


def _scaled(marks: torch.Tensor) -> torch.Tensor:
    """Marks, (count, any), on the set's own scale: 0 at the median, 1 at the `TAIL`."""
    ordered, last = marks.sort(dim=0).values, len(marks) - 1
    middle, tail = ordered[int(0.5 * last)], ordered[int(TAIL * last)]
    scaled: torch.Tensor = (marks - middle) / (tail - middle).clamp_min(torch.tensor(LEAST[: marks.shape[1]]))
    return scaled
