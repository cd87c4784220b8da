"""Do an image's patch tokens stay where they are when the image is made a little coarser?

A perturbation that was searched for with gradients sits on a slope: it moves the tokens far, and most of it goes with
fine detail. So blurring a perturbed image, or rounding its colours, moves its tokens back a long way, while those of a
clean image hardly move. Ours; feature squeezing (Xu et al., NDSS 2018) compares a classifier's outputs in the same way,
this compares every patch of the image tower and needs no classes, so that it serves dense and writing victims too. The
threshold comes from clean images alone. An attacker who knows the guard can search for perturbations that survive the
two views; judge it by such a one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from firmground.defenses.guards.fitted_images import FEWEST, FittedImageGuard, calibrated, judged, shuffled
from firmground.defenses.guards.purifiers import check_share, enlarged
from firmground.errors import DataError
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.dual import DualEncoder
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class PatchInstability:
    """Flags images whose patch tokens move further than those of clean images do, under a coarser view.

    `share` is the resolution that the coarse view keeps, `bits` the depth of the rounded one; of each image the mean
    movement of its `quantile` least stable patches counts, against the clean images' mean and deviation, and the larger
    of the two views. `flag_rate` is the share of clean images that may be flagged.
    """

    name: ClassVar[str] = "patch-instability"
    paper: ClassVar[str] = "ours, after feature squeezing (Xu et al., NDSS 2018)"

    share: float = 0.75
    bits: int = 4
    quantile: float = 0.5
    flag_rate: float = 0.05
    batch_size: int = 64

    def fit(
        self, encoder: DualEncoder, data: LabelledImages, *, rng: torch.Generator, watch: Watch = ignore
    ) -> FittedImageGuard:
        """Calibrates on at least 40 clean images of the kind that will come; their labels are not looked at."""
        check_share(self.share)
        if not 1 <= self.bits <= 8 or not 0 < self.quantile <= 1:
            raise DataError(f"expected 1 to 8 bits and a quantile in (0, 1], got {self.bits} and {self.quantile}")
        rows = shuffled(data, FEWEST, rng)
        moved = judged(data, rows, lambda images: self._moved(encoder, images), batch_size=self.batch_size, watch=watch)
        clean = torch.stack([moved.mean(dim=0), moved.std(dim=0).clamp_min(1e-6)])
        return calibrated(self, encoder, data, larger(moved, clean), {"clean": clean})

    def judge(self, encoder: DualEncoder, tensors: dict[str, torch.Tensor]) -> Callable[[Images], torch.Tensor]:
        """What scores images by `clean`, the mean and deviation of how far each view moves clean ones, (2, views)."""
        clean = tensors["clean"].cpu()
        if clean.shape != (2, 2):
            raise DataError(f"expected the mean and deviation of two views, got a tensor of {tuple(clean.shape)}")
        return lambda images: larger(self._moved(encoder, images), clean)

    @torch.inference_mode()
    def _moved(self, encoder: DualEncoder, images: Images) -> torch.Tensor:
        return self.movement(encoder, images).cpu()

    def movement(self, encoder: DualEncoder, images: Images) -> torch.Tensor:
        """How far each view moves the least stable patches, (batch, 2): one less the cosine of their tokens.

        Differentiable, through the rounding too (straight through), for attackers who know the guard.
        """
        shown = images.to(encoder.device)
        steps = 2**self.bits - 1
        rounded = shown + ((shown * steps).round() / steps - shown).detach()
        own = F.normalize(encoder.patch_tokens(shown).float(), dim=-1)
        found = []
        for view in (enlarged(shown, self.share), rounded):
            tokens = F.normalize(encoder.patch_tokens(view).float(), dim=-1)
            apart = (tokens - own).square().sum(dim=-1) / 2
            count = max(1, round(self.quantile * apart.shape[1]))
            found.append(apart.topk(count, dim=1).values.mean(dim=1))
        return torch.stack(found, dim=1)


def larger(moved: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """The larger of the two movements, (batch,), in deviations from those of clean images."""
    return ((moved - clean[0].to(moved)) / clean[1].to(moved)).amax(dim=1)
