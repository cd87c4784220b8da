"""How far does an image's embedding move when the image is made coarse, or mirrored?

What an image shows survives both; what a trigger says mostly does not: fine patterns go with half of the pixels, and a
mirrored pattern is another one. So a triggered image falls back to what it shows, which is far from where it was, while
a clean one stays. Each movement is measured against those of clean images, and the larger of the two counts. Ours, with
a thought of STRIP (Gao et al., ACSAC 2019), which perturbs and watches the label: embeddings need no labels and no
texts, and move long before a label does. The two views were chosen on two poisoned encoders (BadNet, Blended) of our
own; a trigger that leaves images stiller than they were escapes both, as Blended did on Fashion-MNIST (AUROC 0.07, see
`benchmarks/clip_guard`). The threshold comes from clean images alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from firmground.defenses.guards.fitted_images import FEWEST, FittedImageGuard, calibrated, judged, shuffled
from firmground.errors import DataError
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.dual import DualEncoder
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class Displacement:
    """Flags images whose embedding a coarser or a mirrored view moves further than it moves those of clean images.

    `coarse` is the side of the coarse view as a share of the encoder's; `flag_rate` the share of clean images that may
    be flagged.
    """

    name: ClassVar[str] = "displacement"
    paper: ClassVar[str] = "ours, after STRIP (ACSAC 2019)"

    coarse: float = 0.5
    flag_rate: float = 0.02
    batch_size: int = 64

    def fit(
        self, encoder: DualEncoder, data: LabelledImages, *, rng: torch.Generator, watch: Watch = ignore
    ) -> FittedImageGuard:
        """Calibrates on at least 40 clean images of the kind that will come; their labels are not looked at."""
        check_coarse(self.coarse)
        rows = shuffled(data, FEWEST, rng)
        moved = judged(data, rows, lambda images: self._moved(encoder, images), batch_size=self.batch_size, watch=watch)
        clean = torch.stack([moved.mean(dim=0), moved.std(dim=0).clamp_min(1e-6)])
        return calibrated(self, encoder, data, _larger(moved, clean), {"clean": clean})

    def judge(self, encoder: DualEncoder, tensors: dict[str, torch.Tensor]) -> Callable[[Images], torch.Tensor]:
        """What scores images by `clean`, the mean and deviation of how far each view moves clean ones, (2, views)."""
        clean = tensors["clean"].cpu()
        if clean.shape != (2, 2):
            raise DataError(f"expected the mean and deviation of two views, got a tensor of {tuple(clean.shape)}")
        return lambda images: _larger(self._moved(encoder, images), clean)

    @torch.inference_mode()
    def _moved(self, encoder: DualEncoder, images: Images) -> torch.Tensor:
        """One less the cosine of each image with its coarse and its mirrored view, (batch, 2); taken from distances."""
        shown = views(images.to(encoder.device), self.coarse, encoder.image_size)
        own, *others = (encoder.embed_images(view).float() for view in shown)
        return torch.stack([(other - own).square().sum(dim=1) / 2 for other in others], dim=1).cpu()


def views(images: Images, coarse: float, side: int) -> tuple[Images, Images, Images]:
    """Images as they are, made coarse (to a share `coarse` of the encoder's `side`, and enlarged again), mirrored."""
    less = max(1, round(coarse * side))
    small = F.interpolate(images, size=(less, less), mode="area")
    again = F.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)
    return images, again.clamp(0, 1), images.flip(-1)


def check_coarse(coarse: float) -> None:
    """Raises `DataError` for a share that makes no coarser view."""
    if not 0 < coarse < 1:
        raise DataError(f"expected a coarse view below the encoder's own side, got a share of {coarse}")


def _larger(moved: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    return ((moved - clean[0]) / clean[1]).amax(dim=1)
