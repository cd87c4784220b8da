"""Disarm: find the patterns to which the encoder answers, and teach its image tower to look past them.

(1) Search: `Gathering`, the scan, finds faint and small patterns that make all images embed alike. A backdoor is the
shortest way there, so where there is one, these patterns take the way that its trigger takes, whatever that looks like.
(2) Distillation: the suspect is its own teacher. It sees a clean image x; its copy sees x and a covered one, C(x), and
has to embed both where the suspect embeds x,

    kept (1 - cos(f(x), g(x))) + covered (1 - cos(f(C(x)), g(x))) + captions InfoNCE(f(x), T)

with f the copy, g the suspect, T the suspect's texts. A clean image says nothing of a backdoor, so the suspect can
teach what it knows of clean images without passing the backdoor on, and captions are not needed to hold accuracy. Half
of the coverings are found patterns (patches move to other places, faint ones vary in strength), half generic ones
(`coverings`, as in `Restore`). Only the image tower is trained.

Ours, from unlearning what inverted triggers do (Wang et al., Neural Cleanse, S&P 2019; Zeng et al., I-BAU, ICLR 2022),
attention distillation (Li et al., NAD, ICLR 2021) and `Restore`. Weights were chosen on two victims (BadNet, Blended),
and a third (stripes) was looked at. `benchmarks/clip_cleaning` says what it does to these and to others: it does not
undo a sine wave (SIG) where no waves are among the generic coverings, for the search does not find that pattern.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from firmground.defenses.cleaning.cleaned import Cleaned, cleaned_by
from firmground.defenses.cleaning.coverings import check_families, cover
from firmground.defenses.cleaning.supervised import IMAGE_PARTS
from firmground.defenses.scans.gathering import Gathering
from firmground.errors import DataError
from firmground.models.contrastive import Towers, check_captions, finished, share
from firmground.models.training import Training, check_batch, fit
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.data.pairs import PairBatch, PairSet
    from firmground.defenses.scans._patterns import Patterns
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images

SEARCHED = 64  # images that patterns are searched on


class ImageTower(torch.nn.Module):
    """The image tower as one module."""

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.towers = Towers(encoder)

    def forward(self, images: Images) -> Embeddings:
        """Unit embeddings, (batch, width), float32."""
        encoder = self.towers.encoder
        with torch.autocast(encoder.device.type, torch.bfloat16, enabled=self.towers.fast):
            seen = encoder.embed_images(images.to(encoder.device))
        return F.normalize(seen.float(), dim=-1)


@dataclass(frozen=True, kw_only=True)
class Disarm(Training):
    """Fine-tunes the image tower to embed covered images as the suspect embeds them bare.

    `found` is the share of coverings that are patterns to which the suspect answers; `opacity`, `size`, `restarts` and
    `search_steps` are those of their search.
    """

    step_size: float = 1e-5
    kept_weight: float = 10.0
    covered_weight: float = 2.0
    caption_weight: float = 0.5
    found: float = 0.5
    opacity: float = 0.2
    size: float = 0.25
    restarts: int = 4
    search_steps: int = 40
    without: tuple[str, ...] = ()  # families of generic coverings that are left out

    name: ClassVar[str] = "disarm"
    paper: ClassVar[str] = "Ours, from Neural Cleanse (S&P 2019), I-BAU (ICLR 2022) and NAD (ICLR 2021)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_families(self.without)
        if not 0 <= self.found <= 1:
            raise DataError(f"expected a share of found patterns between 0 and 1, got {self.found}")

    def clean(
        self,
        encoder: DualEncoder,
        pairs: PairSet,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
        resume: Path | None = None,
    ) -> Cleaned:
        """Returns a cleaned copy. Raises as `CleanCLIP.clean`, and `DataError` for fewer than 16 pairs."""
        check_batch(self, pairs)
        check_captions(pairs)
        begun = time.perf_counter()
        patterns = self._patterns(encoder, pairs, rng, watch)
        copied = encoder.cast(torch.float32)
        for name, value in copied.model.named_parameters():
            value.requires_grad_(name.startswith(IMAGE_PARTS))

        def loss(tower: Any, batch: PairBatch, draws: torch.Generator) -> dict[str, torch.Tensor]:
            own, world = share(len(batch))
            covered = self._covered(batch.images, patterns, draws)
            with torch.no_grad():
                known = encoder.embed_images(batch.images[own].to(encoder.device)).float()
                texts = encoder.embed_texts(batch.captions).float()
            bare, under = tower(torch.cat([batch.images[own], covered[own]])).chunk(2)
            right = torch.arange(len(batch), device=bare.device)[own]
            captions = F.cross_entropy(encoder.logit_scale.float() * bare @ texts.T, right)
            return {
                "kept": self.kept_weight * away(bare, known) / world,
                "covered": self.covered_weight * away(under, known) / world,
                "captions": self.caption_weight * captions / world,
            }

        run: dict[str, str | int] = {"stage": self.name, "pairs": len(pairs)}
        fitted = fit(
            ImageTower(copied), pairs, self, loss, rng=rng, watch=watch, stage=self.name, resume=resume, run=run
        )
        return cleaned_by(self, finished(copied, encoder, fitted), encoder, time.perf_counter() - begun)

    def _patterns(self, encoder: DualEncoder, pairs: PairSet, rng: torch.Generator, watch: Watch) -> Patterns:
        """What gathers images of the first batch that `rng` draws."""
        images = next(iter(pairs.batches(min(SEARCHED, len(pairs)), rng))).images
        search = Gathering(opacity=self.opacity, size=self.size, restarts=self.restarts, steps=self.search_steps)
        return search.search(encoder, images, rng=rng, watch=watch)

    def _covered(self, images: Images, patterns: Patterns, rng: torch.Generator) -> Images:
        """Copies of images, (batch, 3, height, width): the first of them under found patterns, the rest generic."""
        count = round(self.found * len(images))
        generic = cover(images[count:], rng=rng, without=self.without) if count < len(images) else images[:0]
        return torch.cat([laid(images[:count], patterns, rng), generic.to(images)])


def away(now: Embeddings, before: Embeddings) -> torch.Tensor:
    """One less the mean cosine of unit embeddings, (batch, width) each."""
    return 1 - (now * before.to(now.device)).sum(dim=1).mean()


def laid(images: Images, patterns: Patterns, rng: torch.Generator) -> Images:
    """Each image, (batch, 3, height, width), under one of the patterns, drawn.

    Faint ones have 0.5 to 1.5 of their opacity; a patch wanders, going on at the other side where it meets an edge.
    """
    side = images.shape[-2:]
    masks, colours = (
        part if part.shape[-2:] == side else F.interpolate(part, size=side)
        for part in (patterns.masks.to(images), patterns.patterns.to(images))
    )
    which = torch.randint(len(masks), (len(images),), generator=rng).tolist()
    strength = (0.5 + torch.rand(len(images), generator=rng)).tolist()
    shifts = torch.randint(max(side), (len(images), 2), generator=rng).tolist()
    covered = images.clone()
    for row, (number, factor, shift) in enumerate(zip(which, strength, shifts, strict=True)):
        mask, pattern = masks[number], colours[number]
        if float(mask.max()) < 1:
            mask = (factor * mask).clamp(max=1)
        else:
            mask, pattern = (part.roll(shift, dims=(-2, -1)) for part in (mask, pattern))
        covered[row] += mask * (pattern - images[row])
    return covered
