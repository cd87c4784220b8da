"""Streams a set of pairs past a sample of itself, and finds each image's nearest neighbours in that sample.

Poisoned images lie together, away from all others. In the whole of a large set they would be one another's neighbours
and look dense; in a sample so small that fewer than `k` of them fall into it they look as sparse as they are. That is
why Huang et al. (ICLR 2025) seek neighbours within a training batch. So of the set only the sample's embeddings are
ever held, and distances to it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from firmground.errors import DataError
from firmground.types import Embeddings, Suspicion, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from firmground.data.pairs import PairSet
    from firmground.models.dual import DualEncoder

    Score: TypeAlias = Callable[["Sample", "Near"], torch.Tensor]

CHUNK = 512  # queries whose similarities to the whole sample are held at once
SMALLEST = 0.01  # of the median: copies of one picture are at no distance, and nothing may be divided by that


@dataclass(frozen=True, kw_only=True, eq=False)
class Near:
    """Euclidean distances to the k nearest of a sample, ascending, and which those are; both (queries, k)."""

    distances: torch.Tensor
    places: torch.Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Unit embeddings, (count, width), and the `Near` of each among the others."""

    embeddings: Embeddings
    near: Near

    @cached_property
    def reach(self) -> torch.Tensor:
        """The distance of each to its k-th neighbour, (count,), at least `SMALLEST` of the median."""
        last = self.near.distances[:, -1]
        return last.clamp_min(max(SMALLEST * float(last.median()), torch.finfo(last.dtype).tiny))


def nearest(queries: Embeddings, sample: Embeddings, k: int, own: torch.Tensor | None = None) -> Near:
    """The k nearest of `sample`, (count, width), to unit `queries`; `own` is the place of each query itself, left out.

    Similarities choose the neighbours; the distances to those are then taken without the cancellation that a distance
    from a similarity suffers.
    """
    distances, places = [], []
    for start in range(0, len(queries), CHUNK):
        some = queries[start : start + CHUNK]
        alike = some @ sample.T
        if own is not None:
            alike.scatter_(1, own[start : start + CHUNK, None], -torch.inf)
        place = alike.topk(k, dim=1).indices
        apart = (some[:, None] - sample[place]).norm(dim=-1)
        apart, order = apart.sort(dim=1)
        distances.append(apart)
        places.append(place.gather(1, order))
    return Near(distances=torch.cat(distances), places=torch.cat(places))


def sift_by_neighbours(
    method: Any,
    encoder: DualEncoder,
    pairs: PairSet,
    score: Score,
    *,
    rng: torch.Generator,
    watch: Watch,
) -> Suspicion:
    """Gives every pair the score, (queries,), of its image's neighbours in a sample of `method.sample` pairs.

    `method` has `name`, `k`, `sample` and `batch_size`. The sample is the beginning of the order that `rng` draws.
    Raises `DataError` where there are no more than k + 1 images.
    """
    started, total = time.perf_counter(), len(pairs)
    if method.k < 1 or method.sample <= method.k:
        raise DataError(f"expected 1 <= k < sample, got k {method.k} and sample {method.sample}; raise sample")
    rows: list[int] = []
    scores: list[torch.Tensor] = []
    waiting: list[Embeddings] = []
    sample: Sample | None = None
    for found, embeddings in _embedded(encoder, pairs, method.batch_size, rng):
        rows += found
        if sample is None:
            waiting.append(embeddings)
            if sum(map(len, waiting)) >= method.sample:
                sample = _sample(torch.cat(waiting), method.k, method.sample)
                scores.append(_first(sample, torch.cat(waiting), method.k, score))
        else:
            scores.append(score(sample, nearest(embeddings, sample.embeddings, method.k)))
        watch(len(rows), total, "sifting")
    if sample is None:
        held = torch.cat(waiting) if waiting else torch.empty(0, encoder.width)
        sample = _sample(held, method.k, method.sample)
        scores.append(score(sample, sample.near))
    return suspicion(method, rows, torch.cat(scores), total, seconds=time.perf_counter() - started)


def suspicion(method: Any, rows: list[int], scores: torch.Tensor, total: int, *, seconds: float) -> Suspicion:
    """Scores, (rows,), in the order of the rows."""
    order = sorted(range(len(rows)), key=rows.__getitem__)
    values = scores.double().tolist()
    lost = total - len(rows)
    return Suspicion(
        method=method.name,
        rows=tuple(rows[i] for i in order),
        scores=tuple(values[i] for i in order),
        doubts=(f"{lost} of {total} images could not be read and have no score",) if lost else (),
        seconds=seconds,
        settings=asdict(method),
    )


def _embedded(
    encoder: DualEncoder, pairs: PairSet, batch_size: int, rng: torch.Generator
) -> Iterator[tuple[list[int], Embeddings]]:
    """Row numbers and image embeddings, batch by batch, in the order that `rng` draws."""
    for batch in pairs.batches(min(batch_size, len(pairs)), rng):
        with torch.inference_mode():
            embeddings = encoder.embed_images(batch.images.to(encoder.device)).float().cpu()
        yield list(batch.rows), embeddings


def _sample(embeddings: Embeddings, k: int, size: int) -> Sample:
    chosen = embeddings[:size]
    if len(chosen) < k + 2:
        raise DataError(f"sifting with k {k} needs at least {k + 2} images, got {len(chosen)}; give more, or lower k")
    return Sample(embeddings=chosen, near=nearest(chosen, chosen, k, torch.arange(len(chosen))))


def _first(sample: Sample, embeddings: Embeddings, k: int, score: Score) -> torch.Tensor:
    """Scores of the first batches, of which the sample is the beginning."""
    rest = embeddings[len(sample.embeddings) :]
    own = score(sample, sample.near)
    return own if not len(rest) else torch.cat([own, score(sample, nearest(rest, sample.embeddings, k))])
