"""Poisoned pairs give themselves away: the image moves and stands on its own ground, or it never fitted its caption.

Two kinds of encoder can judge a set, and a poison shows another mark to each. One that learned the trigger finds that
the caption fits; but make the picture coarse or mirror it, and it falls back to what it shows, far from where it was
(see `guards.displacement`), and the tower's last hidden state is not one of clean images (see `guards.mahalanobis`,
after Lee et al., NeurIPS 2018). One that did not learn it finds, in whatever view, that the image is unlike its caption
(Schuhmann et al., "LAION-400M", 2021, filter by this likeness in one view). So each pair gets four marks: how unlike
image and caption are, the mean of all views; how far either view moves the image; and how far its state lies from the
law of the set's less suspicious half. Each is measured against the set itself: 0 at the median, 1 where a tenth lies
above. A pair is as suspicious as it is unlike its caption, or as the mean of how far it moves and how far off it
stands, whichever is more; nobody needs to know whether the encoder was trained on the pairs. Ours. Neighbours, as in
`dao`, need poisons so few that they lie apart; this needs no such thing.

Poisons must have no part in the law: lying all in one direction, 2 % of them bend it towards themselves. The first
three marks keep most out, but not those whose trigger survives the views (BadCLIP's optimised patch). Yet all poisons
of a target have captions of one kind. So to choose those of the law, a state is also held against the law of that half
of the set whose captions are least like its own: no other poison of that target is in there. A clean state is far from
it too, for what its kind of picture has and others have not; so the distance counts from where a quarter of its kind of
captions lies below. A pair's score knows nothing of this mark: it does not see poisons that the tower never learned.

Chosen on sets of BadNet and Blended (4 and 0.5 %, judged by their own and by a foreign encoder) and text (4 and 0.5 %),
by other pairs of theirs than those that `benchmarks/clip_sift` sifts, and, for the law's pairs, on a set of BadCLIP (by
both encoders) with another patch and other weights than there; the other triggers there had no say.

One trigger whose pairs have captions of many kinds (several targets, or triggered images with their true captions) has
a part in every half of captions. Then only the views keep it out of the law, or nothing does: with the captions of two
targets given to the poisons of one, AUROC fell from 1.000 to 0.502 on that set of BadCLIP, to 0.910 of text, and stayed
at 0.9996 of BadNet.
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

STILL = 1e-4  # a movement or a distance below which differences mean nothing
LEAST = (1e-3, 0.1, 0.1, 1e-2)  # what counts as a difference, of each mark: the last three are logarithms
TAIL = 0.9  # the quantile that is 1
FEWEST, FOLDS, LAST = 16, 5, -1
LAWFUL = 0.5  # of the pairs, those of which the law is made
KINDS, OWN = 16, 0.25  # of captions; the quantile of a kind from which the distances of its pairs count


@dataclass(frozen=True, kw_only=True)
class Displacement:
    """Scores a pair by how unlike its caption the image is, or by how it moves and stands apart, the worse of them.

    `coarse` is the side of the coarse view as a share of the encoder's; `sample` are how many pairs, drawn, the law of
    hidden states is made from: so many states and captions' embeddings are held at once.
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
        held, marks, apart = list[_Seen](), list[torch.Tensor](), list[torch.Tensor]()
        firm: dict[str, torch.Tensor] = {}
        for batch in pairs.batches(min(self.batch_size, len(pairs)), rng):
            seen = self._seen(encoder, batch)
            marks.append(seen.marks)
            rows += batch.rows
            if firm:
                apart.append(distances(seen.states, **firm))
            else:
                held.append(seen)
            if not firm and len(rows) >= self.sample:
                firm, first = _ground(held)
                apart.append(first)
            watch(len(rows), len(pairs), "sifting")
        if len(rows) < FEWEST:
            raise DataError(f"sifting by displacement needs at least {FEWEST} images, got {len(rows)}; give more")
        far = torch.cat(apart) if firm else _ground(held)[1]
        scores = _scores(torch.cat([torch.cat(marks), far.clamp_min(STILL).log()[:, None]], dim=1))
        return suspicion(self, rows, scores, len(pairs), seconds=time.perf_counter() - started)

    @torch.inference_mode()
    def _seen(self, encoder: DualEncoder, batch: PairBatch) -> _Seen:
        bare, *others = views(batch.images.to(encoder.device), self.coarse, encoder.image_size)
        own = glance(encoder, bare, LAST)
        shown = [own.embeddings, *(encoder.embed_images(view).float() for view in others)]
        moved = [(view - shown[0]).square().sum(dim=1).div(2).clamp_min(STILL).log() for view in shown[1:]]
        told = encoder.embed_texts(batch.captions).float()
        likeness = torch.stack([(view * told).sum(dim=1) for view in shown]).mean(dim=0)
        marks = torch.stack([1 - likeness, *moved], dim=1)
        return _Seen(marks=marks.cpu(), states=own.state.cpu(), texts=told.cpu())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """Three `marks` of pairs, (count, 3), last hidden `states`, (count, width), and embedded `texts`, (count, any).

    The marks: how unlike image and caption are, and the logarithms of how far either view moves the image.
    """

    marks: torch.Tensor
    states: torch.Tensor
    texts: torch.Tensor


def _ground(held: list[_Seen]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The law of the states of the least suspicious `LAWFUL`, and how far each state lies from it, (count,).

    Those of the law are held against the law of others of them, as they would lie closer to one that they made.
    """
    marks, states = torch.cat([seen.marks for seen in held]), torch.cat([seen.states for seen in held])
    strange = _strange(states, torch.cat([seen.texts for seen in held])).log()
    suspected = _scaled(torch.cat([marks, strange[:, None]], dim=1)).amax(dim=1)
    least = suspected.argsort(stable=True)[: int(LAWFUL * len(marks))]
    firm = law(states[least])
    apart = distances(states, **firm)
    apart[least] = held_out(states[least], FOLDS)
    return firm, apart


def _strange(states: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """How far each state lies from the law of the half whose captions are least like its kind's, in its kind, (count,).

    A caption is of the kind of the nearest of `KINDS` captions, each of which is the least like those before it.
    """
    alike = texts @ texts[:1].T
    while alike.shape[1] < KINDS:
        alike = torch.cat([alike, texts @ texts[alike.amax(dim=1).argmin()][:, None]], dim=1)
    kind, found = alike.argmax(dim=1), states.new_empty(len(states))
    for number in kind.unique().tolist():
        unlike = alike[:, number].argsort(stable=True)[: len(states) // 2]
        far = distances(states[kind == number], **law(states[unlike])).clamp_min(STILL)
        found[kind == number] = far / far.quantile(OWN)
    return found


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
