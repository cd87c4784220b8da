"""Image-text retrieval: recall at 1, 5 and 10 both ways, and how often a triggered image fetches a target caption.

A caption that several images share is one text; any of its images is a hit. Of equal similarities a hit comes last, so
that a collapsed encoder, to which all is alike, has no recall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from firmground.data.pairs import as_float
from firmground.errors import DataError
from firmground.intervals import wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from firmground.data.pairs import PairSet
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images, Interval

DEPTHS = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class Recall:
    """The share of queries with a hit among the first 1, 5 and 10 answers."""

    at_1: Interval
    at_5: Interval
    at_10: Interval


@dataclass(frozen=True, kw_only=True)
class RetrievalResult:
    """Recall both ways, and retrieval ASR: the recall of target captions by triggered images (None without a trigger).

    `targeted` counts images of which the own caption is no target caption, `targeted_all` all images; `untriggered` is
    `targeted` for the same images without the trigger.
    """

    image_to_text: Recall
    text_to_image: Recall
    targeted: Recall | None = None
    targeted_all: Recall | None = None
    untriggered: Recall | None = None


@torch.no_grad()
def evaluate(
    encoder: DualEncoder,
    pairs: PairSet,
    *,
    stamp: Callable[[Images], Images] | None = None,
    targets: Sequence[str] = (),
    batch_size: int = 64,
) -> RetrievalResult:
    """Measures retrieval within a set of pairs; `stamp` puts a trigger on a batch of images.

    `targets` are the captions that an attacker wants fetched; they join the texts that are searched for the ASR. Pairs
    with a broken image do not count. Raises `DataError` for a trigger without targets, or fewer than two texts.
    """
    if stamp is not None and not targets:
        raise DataError("retrieval ASR needs the target captions; pass `targets` beside `stamp`")
    images: list[Embeddings] = []
    triggered: list[Embeddings] = []
    own: list[str] = []
    for batch in pairs.batches(min(batch_size, len(pairs))):
        images.append(encoder.embed_images(batch.images.to(encoder.device)))
        if stamp is not None:
            triggered.append(encoder.embed_images(as_float(stamp(batch.images)).to(encoder.device)))
        own += batch.captions
    texts = list(dict.fromkeys(own))
    if len(texts) < 2:
        raise DataError(f"retrieval needs at least two different captions, got {len(texts)}")
    pictures, written = torch.cat(images), embed_all(encoder, texts, batch_size)
    places = {text: place for place, text in enumerate(texts)}
    hits = torch.zeros(len(own), len(texts), dtype=torch.bool, device=encoder.device)
    hits[torch.arange(len(own)), [places[text] for text in own]] = True
    result = {"image_to_text": recall(pictures, written, hits), "text_to_image": recall(written, pictures, hits.T)}
    if stamp is not None:
        pool = list(dict.fromkeys([*texts, *targets]))
        wanted = torch.tensor([text in set(targets) for text in pool], device=encoder.device)
        searched = embed_all(encoder, pool, batch_size)
        innocent = torch.tensor([text not in set(targets) for text in own], device=encoder.device)
        stamped = torch.cat(triggered)
        result["targeted_all"] = recall(stamped, searched, wanted.expand(len(stamped), -1))
        result["targeted"] = recall(stamped[innocent], searched, wanted.expand(int(innocent.sum()), -1))
        result["untriggered"] = recall(pictures[innocent], searched, wanted.expand(int(innocent.sum()), -1))
    return RetrievalResult(**result)


def embed_all(encoder: DualEncoder, texts: Sequence[str], batch_size: int) -> Embeddings:
    """Unit embeddings of many texts, (texts, width)."""
    return torch.cat([encoder.embed_texts(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)])


def recall(queries: Embeddings, answers: Embeddings, hits: torch.Tensor) -> Recall:
    """Recall of the answers that `hits`, (queries, answers), says are right."""
    ranks: list[int] = []
    for rows, right in zip(queries.split(512), hits.split(512), strict=True):
        alike = rows @ answers.T
        best = alike.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        ranks += ((alike >= best) & ~right).sum(dim=1).tolist()
    at_1, at_5, at_10 = (wilson(within(ranks, depth), len(ranks)) for depth in DEPTHS)
    return Recall(at_1=at_1, at_5=at_5, at_10=at_10)


def within(ranks: Iterable[int], depth: int) -> int:
    """How many ranks, counted from 0, are among the first `depth`."""
    return sum(rank < depth for rank in ranks)
