"""DECREE: the smallest pattern under which all images embed alike. It needs no labels and no text.

Feng et al., "Detecting Backdoors in Pre-trained Encoders", CVPR 2023. A mask m and a pattern p minimise

    - mean cosine between the embeddings of stamped images + lambda |m|_1

and the encoder is judged by PL1 = |m|_1 / (3 H W) of the smallest mask at which the mean cosine exceeds 0.99: a planted
trigger is small, while an honest encoder must have nearly the whole image painted over.

Departs from the paper: restarts and lambdas run side by side in one batch; the encoder's own normalisation is used
(the authors' code normalises CLIP's images with ImageNet's numbers); a mask counts by all images of the search, where
theirs counts by one batch, and only where images that the search has not seen come near that cosine too; the score is
-log10 PL1, which is higher where more suspicious, and the paper's threshold of 0.1 is 1.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.defenses.scans._patterns import UNMEASURED, Aim, Patterns, halves, search_patterns
from firmground.types import Evidence, Outcome, RecoveredPicture, Severity, Verdict, Watch, ignore

if TYPE_CHECKING:
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images

ALIKE = 0.9  # mean cosine of clean images from which they tell little


@dataclass(frozen=True, kw_only=True)
class DECREE:
    """Scores an encoder by how small a pattern makes all images embed alike: -log10 of the share that it covers.

    `sparsities` are where lambda begins, `restarts` how many patterns each begins from; `cosine` is the mean cosine
    that counts as alike in the search, `confirmed` on unseen images. `threshold` 1 is the paper's PL1 of 0.1.
    """

    name: ClassVar[str] = "decree"
    paper: ClassVar[str] = "DECREE (CVPR 2023)"

    sparsities: tuple[float, ...] = (0.1, 1.0)
    restarts: int = 3
    cosine: float = 0.99
    confirmed: float = 0.95
    steps: int = 200
    step_size: float = 0.3
    batch_size: int = 16
    threshold: float = 1.0

    def scan(self, encoder: DualEncoder, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Verdict:
        """Judges `encoder` by at least 16 clean images, (batch, 3, height, width) in [0, 1], of many kinds."""
        started = time.perf_counter()
        parts = halves(encoder, images, rng)
        found = search_patterns(
            encoder,
            parts.search,
            alike,
            sparsity=torch.tensor(self.sparsities).repeat_interleave(self.restarts),
            restarts=self.restarts,
            aim=self.cosine,
            steps=self.steps,
            step_size=self.step_size,
            batch_size=self.batch_size,
            rng=rng,
            watch=watch,
            stage="searching a pattern for all images",
        )
        with torch.no_grad():
            cosines = mean_cosine(found.embed(encoder, parts.check))
            clean = float(mean_cosine(encoder.embed_images(parts.check).float()[None]))
        return self._verdict(found, cosines, clean, time.perf_counter() - started)

    def _verdict(self, found: Patterns, cosines: torch.Tensor, clean: float, seconds: float) -> Verdict:
        areas = torch.where(cosines > self.confirmed, found.areas, 1.0)
        best = int(areas.argmin())
        area, score = float(areas[best]), max(0.0, -float(areas[best].log10()))
        guilty, found_any = score > self.threshold, area < 1
        caption = f"makes all images embed alike (cosine {float(cosines[best]):.3f}) and covers {area:.1%} of each"
        picture = RecoveredPicture(png=found.png(best), caption=caption, score=score, area=area)
        doubts = []
        if not found_any:
            doubts.append(f"no pattern made all images embed alike in {self.steps} steps, however large; raise steps")
        if clean > ALIKE:
            doubts.append(f"clean images already embed alike (mean cosine {clean:.2f}): little is left to force")
        return Verdict(
            method=self.name,
            outcome=(Outcome.BACKDOORED if guilty else Outcome.CLEAN) if found_any else Outcome.INCONCLUSIVE,
            score=score,
            threshold=self.threshold,
            severity=Severity.HIGH if guilty else Severity.NONE,
            evidence=Evidence(pictures=(picture,) if guilty else ()),
            doubts=(*doubts, UNMEASURED),
            seconds=seconds,
            settings=asdict(self),
            measurements={"PL1": area, "cosine": float(cosines[best]), "cosine of clean images": clean},
        )


def alike(embeddings: Embeddings, rows: torch.Tensor) -> Aim:
    """The objective: all images in one place, wherever that is."""
    cosines = mean_cosine(embeddings)
    return Aim(loss=1 - cosines, reached=cosines)


def mean_cosine(embeddings: Embeddings) -> torch.Tensor:
    """The mean cosine of all pairs of different images, (candidates,), from unit (candidates, images, width)."""
    count = embeddings.shape[1]
    together = embeddings.mean(dim=1).square().sum(dim=-1)
    return (count * together - 1) / (count - 1)
