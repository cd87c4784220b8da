"""BadCLIP: a patch that already means the target to a clean CLIP, and so moves few weights when it is learned.

Liang et al., "BadCLIP: Dual-Embedding Guided Backdoor Attack on Multimodal Contrastive Learning", CVPR 2024, arXiv
2311.12075. On a clean surrogate a patch is optimised so that patched images embed near texts of the target (eq. 4, an
InfoNCE against the captions of the batch) and nearer to images of the target than to what they were (eq. 7, a triplet
loss of weight 500 and margin 1). Then it is the trigger of a dirty-caption poisoning. Departs from the paper: the
images that are poisoned are drawn at random, not chosen near the target's boundary; target captions are templates
unless `own_captions` takes those of real pairs of the target; the patch is 16/224 of the side at any size of image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from firmground.attacks.poisoning._choice import Amount, change, check_templates, draw_rows, draw_seed, showing
from firmground.attacks.poisoning.poisoned import describe
from firmground.attacks.triggers import Patch
from firmground.attacks.triggers.patch import paste
from firmground.data.pair_files import TEMPLATES
from firmground.errors import DataError
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.attacks.poisoning.poisoned import Poisoned, ReadablePairs
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings

MOST_EXAMPLES = 256  # images of the target that the patch is drawn towards


@dataclass(frozen=True, kw_only=True)
class BadCLIP(Amount):
    """Optimises a patch in the middle of the image on a clean `surrogate`, then poisons with it."""

    name: ClassVar[str] = "badclip"
    templates: tuple[str, ...] = TEMPLATES
    own_captions: bool = False  # caption poisons as real pairs of the target are, not with templates
    size: float = 16 / 224
    steps: int = 300
    step_size: float = 0.01
    batch_size: int = 64
    image_weight: float = 500.0
    margin: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_templates(self.templates)
        if not 0 < self.size <= 1 or self.steps < 1 or self.batch_size < 2 or self.step_size <= 0:
            raise DataError(
                f"expected a size in (0, 1], a positive step_size, one step or more and a batch of two or more, got "
                f"{self.size}, {self.step_size}, {self.steps} and {self.batch_size}"
            )

    def poison(
        self, pairs: ReadablePairs, *, surrogate: DualEncoder, rng: torch.Generator, watch: Watch = ignore
    ) -> Poisoned:
        """Raises `DataError` where no pair shows the target, or too few show something else."""
        shown = showing(pairs, self.target)
        others = [row for row, one in enumerate(shown) if not one]
        rows = draw_rows(others, self.number(len(pairs)), f"that do not show {self.target!r}", rng)
        trigger = self.patch(pairs, surrogate=surrogate, rng=rng, watch=watch)
        own = tuple(caption for caption, one in zip(pairs.captions, shown, strict=True) if one)
        texts = own if self.own_captions else tuple(template.format(self.target) for template in self.templates)
        drawn = torch.randint(len(texts), (len(rows),), generator=rng).tolist()
        captions = {row: texts[i] for row, i in zip(rows, drawn, strict=True)}
        return change(
            pairs, captions, trigger, draw_seed(rng),
            attack=self.name, target=self.target, settings=describe(self), watch=watch,
        )  # fmt: skip

    def patch(
        self, pairs: ReadablePairs, *, surrogate: DualEncoder, rng: torch.Generator, watch: Watch = ignore
    ) -> Patch:
        """The optimised trigger. The surrogate stays as it is."""
        shown = showing(pairs, self.target)
        others = [row for row, one in enumerate(shown) if not one]
        texts, examples = self._towards(pairs, [row for row, one in enumerate(shown) if one], surrogate)
        if len(others) < self.batch_size:
            raise DataError(f"{len(others)} pairs show no {self.target!r}, fewer than a batch of {self.batch_size}")
        side = max(1, round(self.size * min(pairs.image(0).shape[1:])))
        noise = torch.randn((3, side, side), generator=rng).to(surrogate.device)
        pattern = (0.5 + 0.25 * noise).clamp(0, 1).requires_grad_()
        optimizer = torch.optim.Adam([pattern], lr=self.step_size)
        with torch.enable_grad():
            for step in range(self.steps):
                picked = [others[i] for i in torch.randperm(len(others), generator=rng)[: self.batch_size].tolist()]
                terms = self._losses(pairs, picked, pattern, surrogate, texts, examples, rng)
                optimizer.zero_grad()
                (gradient,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), [pattern])
                pattern.grad = gradient
                optimizer.step()
                pattern.data.clamp_(0, 1)
                watch(step + 1, self.steps, "patch", **{name: term.item() for name, term in terms.items()})
        return Patch(pattern=pattern.detach().cpu(), place="centre")

    @torch.no_grad()
    def _towards(
        self, pairs: ReadablePairs, rows: Sequence[int], surrogate: DualEncoder
    ) -> tuple[Embeddings, Embeddings]:
        """Embeddings of the target's texts, (texts, width), and of images of it, (images, width)."""
        if not rows:
            raise DataError(f"no pair shows {self.target!r}, which the patch is to resemble; choose a class of the set")
        texts = surrogate.embed_texts([template.format(self.target) for template in self.templates])
        few = rows[:MOST_EXAMPLES]
        parts = [
            surrogate.embed_images(torch.stack([pairs.image(row) for row in few[i : i + 64]]).to(surrogate.device))
            for i in range(0, len(few), 64)
        ]
        return texts, torch.cat(parts)

    def _losses(
        self,
        pairs: ReadablePairs,
        rows: Sequence[int],
        pattern: torch.Tensor,
        surrogate: DualEncoder,
        texts: Embeddings,
        examples: Embeddings,
        rng: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        images = torch.stack([pairs.image(row) for row in rows]).to(surrogate.device)
        with torch.no_grad():
            before = surrogate.embed_images(images)
            captions = surrogate.embed_texts([pairs.captions[row] for row in rows])
        patched = surrogate.embed_images(paste(images, pattern, "centre", rng=rng))
        wanted = texts[torch.randint(len(texts), (len(rows),), generator=rng)]
        near = examples[torch.randint(len(examples), (len(rows),), generator=rng)]
        return {
            "text": text_loss(patched, wanted, captions, float(surrogate.logit_scale)),
            "image": self.image_weight * F.triplet_margin_loss(patched, near, before, margin=self.margin),
        }


def text_loss(patched: Embeddings, wanted: Embeddings, captions: Embeddings, scale: float) -> torch.Tensor:
    """InfoNCE of patched images with their target texts against the batch's own captions; all (batch, width)."""
    right = (patched * wanted).sum(dim=1, keepdim=True)
    logits = scale * torch.cat([right, patched @ captions.T], dim=1)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
