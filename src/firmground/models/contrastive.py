"""Contrastive training of dual encoders: InfoNCE, embeddings of many views in one forward pass, and pretraining.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, arXiv 2103.00020;
with unimodal terms as in Bansal et al., "CleanCLIP", ICCV 2023, arXiv 2303.03323 (InfoNCE + SSL).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from firmground.errors import DataError
from firmground.models.augmentation import Augmentation, augment
from firmground.models.dual import unit
from firmground.models.language import Tokens
from firmground.models.text_edits import edit_texts
from firmground.models.training import Fitted, Training, fit
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from firmground.data.pairs import PairBatch, PairSet
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images

BF16_WIDTH = 256  # image towers narrower than this are slower in bfloat16


@dataclass(frozen=True, kw_only=True)
class Views:
    """Unit embeddings, (batch, width) each, of the given views of a batch's images and texts, and the logit scale."""

    images: tuple[Embeddings, ...]
    texts: tuple[Embeddings, ...]
    scale: torch.Tensor


class Towers(torch.nn.Module):
    """Both towers of an encoder as one module, whose forward embeds both sides: what several devices need."""

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.model = encoder.model
        self.encoder = encoder
        config = encoder.model.config.vision_config
        self.fast = int(getattr(config, "hidden_size", 0)) >= BF16_WIDTH

    def forward(
        self, images: Images, ids: torch.Tensor, mask: torch.Tensor
    ) -> tuple[Embeddings, Embeddings, torch.Tensor]:
        """Unit embeddings of images and of texts, and the logit scale; float32."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.fast):
            seen = self.encoder.embed_images(images)
            read = self.encoder.embed_ids(Tokens(ids=ids, mask=mask))
        return unit(seen.float()), unit(read.float()), self.encoder.logit_scale.float()


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained copy of an encoder, how many steps it took, and each term of the loss over the last of them."""

    encoder: DualEncoder
    steps: int
    losses: dict[str, float]


def info_nce(images: Embeddings, texts: Embeddings, scale: torch.Tensor) -> torch.Tensor:
    """CLIP's loss: the mean of both directions."""
    return 0.5 * (one_way(images, texts, scale) + one_way(texts, images, scale))


def one_way(anchors: Embeddings, others: Embeddings, scale: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each anchor's similarities to all others, its own being right."""
    logits = scale * anchors @ others.T
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def embed_views(towers: Any, images: Sequence[Images], texts: Sequence[Sequence[str]]) -> Views:
    """Embeds all views of a batch in one forward pass of each tower.

    Every view has the batch's rows in their order. On several devices each embeds its share of the rows and all get all
    embeddings, with gradients to their own.
    """
    encoder: DualEncoder = getattr(towers, "module", towers).encoder
    own, world = share(len(images[0]))
    pixels = torch.cat([view[own] for view in images]).to(encoder.device)
    tokens = encoder.tokenize([text for view in texts for text in view[own]])
    seen, read, scale = towers(pixels, tokens.ids, tokens.mask)
    shared = scale if world == 1 else scale.detach() + (scale - scale.detach()) / world
    return Views(
        images=tuple(gathered(part) for part in seen.chunk(len(images))),
        texts=tuple(gathered(part) for part in read.chunk(len(texts))),
        scale=shared,
    )


def gathered(rows: torch.Tensor) -> torch.Tensor:
    """The rows of all processes; gradients reach this process's own."""
    rank, world = _world()
    if world == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world)]
    torch.distributed.all_gather(parts, rows.detach().contiguous())
    parts[rank] = rows
    return torch.cat(parts)


def share(count: int) -> tuple[slice, int]:
    """Which of `count` rows are this process's, and how many processes there are; a remainder is nobody's."""
    rank, world = _world()
    return slice(rank, count // world * world, world), world


def _world() -> tuple[int, int]:
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if running else (0, 1)


def train_encoder(
    encoder: DualEncoder,
    pairs: PairSet,
    how: Training,
    objective: Callable[[Any, PairBatch, torch.Generator], dict[str, torch.Tensor]],
    *,
    rng: torch.Generator,
    watch: Watch,
    stage: str,
    resume: Path | None = None,
) -> Trained:
    """Trains a copy of `encoder` in float32 and gives it back frozen, in the dtype of `encoder`; see `training.fit`."""
    copied = encoder.cast(torch.float32)
    copied.model.requires_grad_(True)
    fitted = fit(
        Towers(copied), pairs, how, objective,
        rng=rng, watch=watch, stage=stage, resume=resume, run={"stage": stage, "pairs": len(pairs)},
    )  # fmt: skip
    return finished(copied, encoder, fitted)


def finished(copied: DualEncoder, encoder: DualEncoder, fitted: Fitted) -> Trained:
    """What `train_encoder` gives back: the copy at rest, where and as wide as the encoder that came in."""
    copied.model.zero_grad(set_to_none=True)
    copied.model.to(device=encoder.device, dtype=encoder.dtype).eval().requires_grad_(False)
    return Trained(encoder=copied, steps=fitted.steps, losses=fitted.losses)


@dataclass(frozen=True, kw_only=True)
class Pretrain(Training):
    """Trains a dual encoder on pairs, from random weights or a checkpoint's.

    The defaults are CleanCLIP's for CC3M. `unimodal_weight` above 0 adds that times half of InfoNCE(I, I~) + InfoNCE(T,
    T~) with augmented images and edited texts, which makes backdoors harder to remove (arXiv 2311.14948).
    """

    epochs: int = 64
    batch_size: int = 128
    step_size: float = 5e-4
    warm_up: float = 10_000
    unimodal_weight: float = 0.0
    augmentation: Augmentation = "auto"

    name: ClassVar[str] = "pretrain"

    def train(
        self,
        encoder: DualEncoder,
        pairs: PairSet,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
        resume: Path | None = None,
    ) -> Trained:
        """Returns a trained copy; `encoder` stays as it was. Raises what `training.fit` does."""
        check_captions(pairs)

        def loss(towers: Any, batch: PairBatch, draws: torch.Generator) -> dict[str, torch.Tensor]:
            """InfoNCE and, where it has a weight, the unimodal term, each a scalar."""
            if self.unimodal_weight == 0:
                views = embed_views(towers, [batch.images], [batch.captions])
                return {"contrastive": info_nce(views.images[0], views.texts[0], views.scale)}
            other = augment(batch.images, self.augmentation, rng=draws)
            views = embed_views(towers, [batch.images, other], [batch.captions, edit_texts(batch.captions, rng=draws)])
            return {
                "contrastive": info_nce(views.images[0], views.texts[0], views.scale),
                "unimodal": self.unimodal_weight * unimodal(views),
            }

        return train_encoder(encoder, pairs, self, loss, rng=rng, watch=watch, stage=self.name, resume=resume)


def unimodal(views: Views) -> torch.Tensor:
    """Half of InfoNCE(I, I~) + InfoNCE(T, T~), each in one direction, of originals and their first other views."""
    images = one_way(views.images[0], views.images[1], views.scale)
    return 0.5 * (images + one_way(views.texts[0], views.texts[1], views.scale))


def check_captions(pairs: PairSet) -> None:
    """Raises `DataError` where all captions are the same: contrast has nothing to go by."""
    if len(pairs) > 1 and len(set(pairs.captions)) < 2:
        raise DataError(
            f"all {len(pairs)} captions are {pairs.captions[0]!r}; contrastive training needs pairs that differ, "
            f"of two classes at least"
        )
