"""CleanCLIP, and its control: fine-tuning on clean pairs with and without contrast within each side.

Bansal et al., "CleanCLIP: Mitigating Data Poisoning Attacks in Multimodal Contrastive Learning", ICCV 2023, arXiv
2303.03323. L = l1 InfoNCE(I, T) + l2 / 2 [InfoNCE(I, I~) + InfoNCE(T, T~)], all with one temperature and the last two
in one direction; I~ by AutoAugment, T~ by one operation of EDA. Originals and augmentations pass through each tower in
one forward pass, as in the authors' code, so that batch norms see both. Departs from that code: the warm-up is not
skipped, the optimizer starts fresh where the code reloads the poisoned run's, gradients are clipped, and EDA's synonyms
come from a small table (`models.text_edits`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from firmground.defenses.cleaning.cleaned import Cleaned, clean_by
from firmground.models.augmentation import Augmentation, augment
from firmground.models.contrastive import embed_views, info_nce, unimodal
from firmground.models.text_edits import edit_texts
from firmground.models.training import Training
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from firmground.data.pairs import PairBatch, PairSet
    from firmground.models.dual import DualEncoder


@dataclass(frozen=True, kw_only=True)
class CleanCLIP(Training):
    """Fine-tunes on clean pairs, so that images also resemble their augmentations and texts their edits.

    The defaults are the paper's for 100,000 pairs; smaller sets and models need larger steps.
    """

    contrastive_weight: float = 1.0
    unimodal_weight: float = 1.0
    augmentation: Augmentation = "auto"
    edit_rate: float = 0.1  # share of a text's words that EDA changes

    name: ClassVar[str] = "cleanclip"
    paper: ClassVar[str] = "Bansal et al., CleanCLIP, ICCV 2023 (arXiv 2303.03323)"

    def clean(
        self,
        encoder: DualEncoder,
        pairs: PairSet,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
        resume: Path | None = None,
    ) -> Cleaned:
        """Returns a cleaned copy. Raises `DataError` for pairs that cannot be used, and what `training.fit` does."""

        def loss(towers: Any, batch: PairBatch, draws: torch.Generator) -> dict[str, torch.Tensor]:
            images = [batch.images, augment(batch.images, self.augmentation, rng=draws)]
            texts = [batch.captions, edit_texts(batch.captions, rng=draws, rate=self.edit_rate)]
            views = embed_views(towers, images, texts)
            return {
                "contrastive": self.contrastive_weight * info_nce(views.images[0], views.texts[0], views.scale),
                "unimodal": self.unimodal_weight * unimodal(views),
            }

        return clean_by(self, loss, encoder, pairs, rng=rng, watch=watch, resume=resume)


@dataclass(frozen=True, kw_only=True)
class ContrastiveFinetune(Training):
    """Fine-tunes on clean pairs by InfoNCE alone: the control, which leaves most backdoors where they are."""

    name: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Bansal et al., CleanCLIP, ICCV 2023 (arXiv 2303.03323), its control"

    def clean(
        self,
        encoder: DualEncoder,
        pairs: PairSet,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
        resume: Path | None = None,
    ) -> Cleaned:
        """Returns a fine-tuned copy. Raises as `CleanCLIP.clean`."""

        def loss(towers: Any, batch: PairBatch, draws: torch.Generator) -> dict[str, torch.Tensor]:
            views = embed_views(towers, [batch.images], [batch.captions])
            return {"contrastive": info_nce(views.images[0], views.texts[0], views.scale)}

        return clean_by(self, loss, encoder, pairs, rng=rng, watch=watch, resume=resume)
