"""Gathering: can a faint pattern over the whole image, a small patch, or a wave bring all images to one place?

DECREE asks how small a mask may become, and spends its steps on shrinking it; the number that it ends with is that of
an honest encoder where a trigger covers everything but is faint. Here what a pattern may be is fixed beforehand, faint
(`opacity` over the whole image) or small (`size` of the sides, in a place that is drawn), and only its colours are
searched, to make all images embed alike, wherever that is. Plane waves are few, so all of up to `cycles` are tried.
What counts is how much of the spread of clean images is left under the best of them, on images that the search has not
seen: the score is -log10 of (1 - mean cosine) by the same of clean images. An encoder that learned a trigger of these
kinds is led there within a few dozen steps of signs (as universal perturbations are found, Shafahi et al., AAAI 2020,
arXiv 1811.11304); an honest one gives way as well, for a pattern that says "ring" is a picture of a ring, but not as
far. It needs no labels and no text. Ours, from DECREE (Feng et al., CVPR 2023); waves by Tsuzuku and Sato, CVPR 2019.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.defenses.scans._patterns import Patterns, grains, halves
from firmground.defenses.scans._waves import closest_waves, waved
from firmground.defenses.scans.decree import ALIKE, mean_cosine
from firmground.errors import DataError
from firmground.types import Evidence, Outcome, RecoveredPicture, Severity, Verdict, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images

CLOSEST = 1e-4  # of the spread of clean images, below which embeddings are one
LAST = 0.1  # of the first step, the last
SMALL = "the threshold was measured on small encoders only"


@dataclass(frozen=True, kw_only=True)
class Gathering:
    """Scores an encoder by how much of clean images' spread a pattern or wave leaves, -log10 of that share.

    `opacity` is that of a pattern over the whole image, `size` the side of a patch as a share of the image's; of each
    kind there are `restarts`. Waves swing by `amplitude`. `threshold` was measured on clean encoders of
    `benchmarks/clip_scan`, which are small.
    """

    name: ClassVar[str] = "gathering"
    paper: ClassVar[str] = "ours, from DECREE (CVPR 2023)"

    opacity: float = 0.2
    size: float = 0.25
    restarts: int = 3
    steps: int = 40
    step_size: float = 0.1
    amplitude: float = 0.25
    cycles: int = 10
    batch_size: int = 16
    threshold: float = 1.38

    def __post_init__(self) -> None:
        if not (0 < self.opacity < 1 and 0 < self.size < 1):
            raise DataError(f"expected an opacity and a size between 0 and 1, got {self.opacity} and {self.size}")
        if not 0 < self.amplitude <= 1 or self.cycles < 1:
            raise DataError(
                f"expected waves of an amplitude above 0 and at most 1 and of a cycle or more, got {self.amplitude} "
                f"and {self.cycles}"
            )
        if self.restarts < 1 or self.batch_size < 2:
            raise DataError(f"expected a restart and batches of 2 at least, got {self.restarts} and {self.batch_size}")

    def scan(self, encoder: DualEncoder, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Verdict:
        """Judges `encoder` by at least 16 clean images, (batch, 3, height, width) in [0, 1], of many kinds."""
        started = time.perf_counter()
        parts = halves(encoder, images, rng)
        masks = self._masks(parts.search.shape[-1], rng)
        found = gathered(
            encoder, parts.search, masks, steps=self.steps, step_size=self.step_size, batch_size=self.batch_size,
            rng=rng, watch=watch, stage="searching patterns that gather",
        )  # fmt: skip
        wave = closest_waves(encoder, parts.search, amplitude=self.amplitude, cycles=self.cycles, count=1)
        with torch.no_grad():
            under = waved(encoder, parts.check, wave, self.amplitude)
            cosines = torch.cat([mean_cosine(found.embed(encoder, parts.check)), mean_cosine(under)])
            clean = float(mean_cosine(encoder.embed_images(parts.check).float()[None]))
        everything = found.joined(_shown(wave, self.amplitude))
        return self._verdict(everything, cosines, clean, time.perf_counter() - started)

    def _masks(self, side: int, rng: torch.Generator) -> torch.Tensor:
        """Faint ones over everything, then patches in drawn places, (2 * restarts, 1, side, side)."""
        masks = torch.zeros(2 * self.restarts, 1, side, side)
        masks[: self.restarts] = self.opacity
        edge = max(1, round(self.size * side))
        for mask in masks[self.restarts :]:
            top, left = torch.randint(side - edge + 1, (2,), generator=rng).tolist()
            mask[:, top : top + edge, left : left + edge] = 1.0
        return masks

    def _verdict(self, found: Patterns, cosines: torch.Tensor, clean: float, seconds: float) -> Verdict:
        scores = -((1 - cosines) / max(1 - clean, CLOSEST)).clamp_min(CLOSEST).log10()
        best, waves = int(scores.argmax()), len(cosines) - 1
        score = max(0.0, float(scores[best]))
        kind = "wave" if best == waves else "faint pattern" if best < self.restarts else "small pattern"
        told, area = clean <= ALIKE, float(found.areas[best])
        guilty = told and score > self.threshold
        caption = f"a {kind} that makes all images embed alike (cosine {float(cosines[best]):.3f})"
        picture = RecoveredPicture(png=found.png(best), caption=caption, score=score, area=area)
        doubts = (
            [] if told else [f"clean images embed alike already (mean cosine {clean:.2f}): little is left to force"]
        )
        return Verdict(
            method=self.name,
            outcome=(Outcome.BACKDOORED if guilty else Outcome.CLEAN) if told else Outcome.INCONCLUSIVE,
            score=score,
            threshold=self.threshold,
            severity=Severity.HIGH if guilty else Severity.NONE,
            evidence=Evidence(pictures=(picture,) if guilty else ()),
            doubts=(*doubts, SMALL),
            seconds=seconds,
            settings=asdict(self),
            measurements={
                "faint": float(cosines[: self.restarts].max()),
                "small": float(cosines[self.restarts : waves].max()),
                "wave": float(cosines[waves]),
                "cosine of clean images": clean,
            },
        )


def gathered(
    encoder: DualEncoder,
    images: Images,
    masks: torch.Tensor,
    *,
    steps: int,
    step_size: float,
    batch_size: int,
    rng: torch.Generator,
    watch: Watch,
    stage: str,
) -> Patterns:
    """Colours behind each of `masks`, (count, 1, side, side), that bring `images` of that side closest together.

    They take steps of signs up the mean cosine of batches; the masks stay as they are.
    """
    masks = masks.to(images.device)
    colours = climbed(
        grains(images.shape[-1], len(masks), rng).sigmoid().to(images.device), images,
        lambda now, some: Patterns(masks=masks, patterns=now).embed(encoder, some),
        bounds=(0, 1), steps=steps, step_size=step_size, batch_size=batch_size, rng=rng, watch=watch, stage=stage,
    )  # fmt: skip
    return Patterns(masks=masks, patterns=colours)


def climbed(
    now: torch.Tensor,
    images: Images,
    embed: Callable[[torch.Tensor, Images], Embeddings],
    *,
    bounds: tuple[float, float],
    steps: int,
    step_size: float,
    batch_size: int,
    rng: torch.Generator,
    watch: Watch,
    stage: str,
) -> torch.Tensor:
    """Candidates, (count, ...), after steps of signs up the mean cosine of batches of images, within `bounds`.

    `embed` gives the embeddings of images under each candidate, (count, images, width).
    """
    for step in range(steps):
        drawn = torch.randperm(len(images), generator=rng)[:batch_size].to(images.device)
        cosines = mean_cosine(embed(now.requires_grad_(), images[drawn]))
        (slope,) = torch.autograd.grad(cosines.sum(), now)
        size = step_size * max(LAST, 1 - step / steps)
        now = (now.detach() + size * slope.sign()).clamp(*bounds)
        watch(step + 1, steps, stage, closest=float(cosines.detach().max()))
    return now


def _shown(wave: torch.Tensor, amplitude: float) -> Patterns:
    """A wave, (1, 1, side, side), as a grey pattern over everything, as opaque as it swings."""
    return Patterns(masks=torch.full_like(wave, amplitude), patterns=wave.expand(-1, 3, -1, -1))
