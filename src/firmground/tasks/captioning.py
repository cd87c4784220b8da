"""Image captioning: CIDEr and BLEU-1 to 4, by pycocoevalcap, on captions that a plain tokenizer splits.

Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015 (its CIDEr-D, as COCO counts it);
Papineni et al., "BLEU", ACL 2002, with the closest reference's length. Departs from COCO's server: its PTB tokenizer is
a Java program, and ours splits at white space and drops punctuation, in small letters; scores differ a little.
The interval's bootstrap keeps the document frequencies of the whole set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy

from firmground.errors import DataError, MissingExtraError
from firmground.tasks.resampling import image_weights, percentile
from firmground.types import ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from firmground.data.annotated_images import AnnotatedImages
    from firmground.tasks.resampling import Floats
    from firmground.types import Images, Interval, Watch

ORDER = 4  # the longest n-grams


class Captioner(Protocol):
    """A victim that describes images."""

    def caption(self, images: Images) -> tuple[str, ...]:
        """One caption an image."""


@dataclass(frozen=True, kw_only=True)
class CaptionResult:
    """CIDEr (COCO's scale: 1.0 is what papers print as 100) and BLEU in [0, 1], with bootstrap intervals over images.

    `captions` are the victim's, in the order of the images; `replicates` are CIDErs of resampled sets.
    """

    cider: Interval
    bleu: tuple[Interval, ...]  # of 1-grams, and so on to 4-grams
    captions: tuple[str, ...] = field(repr=False, default=())
    replicates: tuple[float, ...] = field(repr=False, default=())

    @property
    def headline(self) -> Interval:
        return self.cider


def evaluate(
    victim: Captioner, data: AnnotatedImages, *, batch_size: int = 16, rng: torch.Generator, watch: Watch = ignore
) -> CaptionResult:
    """Measures a victim on images with one reference caption or more each; `rng` draws the bootstrap.

    Raises `DataError` for data without captions or fewer than two images, of which CIDEr knows no frequencies.
    """
    if data.captions is None or any(not own for own in data.captions):
        raise DataError("captioning needs at least one reference caption for each image, which these images lack")
    if len(data) < 2:
        raise DataError("CIDEr weighs words by how many images they suit, so it needs at least two images, got one")
    said: list[str] = []
    for batch in data.batches(batch_size):
        found = victim.caption(batch.images)
        if len(found) != len(batch.rows):
            raise DataError(f"the victim gave {len(found)} captions to {len(batch.rows)} images; it must give one each")
        said += found
        watch(len(said), len(data), "captioning")
    return score(said, data.captions, rng)


def score(said: Sequence[str], references: Sequence[Sequence[str]], rng: torch.Generator) -> CaptionResult:
    """The metrics of given captions."""
    bleu_scorer, cider_scorer = _scorers()
    for text, own in zip(said, references, strict=True):
        pair = (" ".join(tokens(text)), [" ".join(tokens(one)) for one in own])
        bleu_scorer += pair
        cider_scorer += pair
    weights = image_weights(len(said), rng)
    _, ciders = cider_scorer.compute_score()
    replicates = weights @ ciders / len(said)
    counts = _bleu_counts(bleu_scorer)
    whole, resampled = bleu(counts.sum(axis=0, keepdims=True)), bleu(weights @ counts)
    return CaptionResult(
        cider=percentile(float(ciders.mean()), replicates, len(said)),
        bleu=tuple(percentile(float(whole[0, n]), resampled[:, n], len(said)) for n in range(ORDER)),
        captions=tuple(said),
        replicates=tuple(replicates.tolist()),
    )


def tokens(caption: str) -> list[str]:
    """The words of a caption in small letters, punctuation dropped.

    >>> tokens("A man's red-white Hat, twice.")
    ['a', 'man', "'s", 'red-white', 'hat', 'twice']
    """
    return re.findall(r"\w+(?:-\w+)*|'\w+", caption.lower())


def bleu(sums: Floats) -> Floats:
    """BLEU-1 to 4, (sets, 4), from counts summed over each set, (sets, 10): see `_bleu_counts`."""
    correct, guessed, said, expected = sums[:, :ORDER], sums[:, ORDER : 2 * ORDER], sums[:, -2], sums[:, -1]
    precision = numpy.log((correct + 1e-15) / (guessed + 1e-9)).cumsum(axis=1) / numpy.arange(1, ORDER + 1)
    ratio = (said + 1e-15) / (expected + 1e-9)
    penalty: Floats = numpy.minimum(1 - 1 / ratio, 0.0)[:, None]
    return numpy.exp(precision + penalty)


def _bleu_counts(scorer: Any) -> Floats:
    """By image: n-grams that are right, n-grams said, words said, words of the reference of the closest length."""
    rows = []
    for one in scorer.ctest:
        closest = min((abs(length - one["testlen"]), length) for length in one["reflen"])[1]
        rows.append([*one["correct"], *one["guess"], one["testlen"], closest])
    return numpy.array(rows, dtype=float)


def _scorers() -> tuple[Any, Any]:
    try:
        from pycocoevalcap.bleu.bleu_scorer import BleuScorer
        from pycocoevalcap.cider.cider_scorer import CiderScorer
    except ImportError as error:
        raise MissingExtraError("pycocoevalcap", "tasks") from error
    return BleuScorer(n=ORDER), CiderScorer(n=ORDER)
