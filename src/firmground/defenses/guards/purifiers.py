"""Purifiers: what is done to every image before the encoder sees it, so that a fine perturbation does not get through.

None looks at the encoder, and none can be proof against an attacker who knows it: gradients pass around what they
cannot pass through (Athalye et al., "Obfuscated Gradients", ICML 2018). Judge them by such an attacker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from firmground.data.encoding import through_jpeg
from firmground.errors import DataError
from firmground.models.preprocessing import check_images
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class Jpeg:
    """Saves each image as JPEG at a `quality` of 1 to 95 and reads it again.

    Dziugaite, Ghahramani and Roy, "A Study of the Effect of JPG Compression on Adversarial Images", 2016.
    """

    name: ClassVar[str] = "jpeg"
    paper: ClassVar[str] = "Dziugaite et al., 2016 (arXiv 1608.00853)"

    quality: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise DataError(f"expected a JPEG quality from 1 to 95, got {self.quality}")

    @torch.no_grad()
    def purge(self, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Images:
        """The images, (batch, 3, height, width) in [0, 1], after it; no gradient passes."""
        check_images(images)
        return torch.stack([through_jpeg(image, self.quality) for image in images.float()]).to(images)


@dataclass(frozen=True, kw_only=True)
class BitDepth:
    """Rounds every channel to `bits` bits.

    Xu, Evans and Qi, "Feature Squeezing", NDSS 2018.
    """

    name: ClassVar[str] = "bit-depth"
    paper: ClassVar[str] = "Xu et al., Feature Squeezing, NDSS 2018 (arXiv 1704.01155)"

    bits: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise DataError(f"expected 1 to 8 bits, got {self.bits}")

    def purge(self, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Images:
        """The images, (batch, 3, height, width) in [0, 1], after it; the gradient is zero."""
        check_images(images)
        steps = float(2**self.bits - 1)
        return (images.clamp(0, 1) * steps).round() / steps


@dataclass(frozen=True, kw_only=True)
class Resizing:
    """Makes images smaller, to a `share` of their sides, and enlarges them again; gradients pass."""

    name: ClassVar[str] = "resizing"
    paper: ClassVar[str] = "Guo et al., Countering Adversarial Images, ICLR 2018 (arXiv 1711.00117), rescaling"

    share: float = 0.6

    def __post_init__(self) -> None:
        check_share(self.share)

    def purge(self, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Images:
        """The images, (batch, 3, height, width) in [0, 1], after it."""
        check_images(images)
        return enlarged(images, self.share)


@dataclass(frozen=True, kw_only=True)
class RandomResizing:
    """Makes images smaller by a random amount, puts them at a random place on grey and adds a little noise.

    Xie et al., "Mitigating Adversarial Effects Through Randomization", ICLR 2018, arXiv 1711.01991. Departs from the
    paper: one size and place for a batch, smaller rather than larger (an encoder resizes to its own side anyway), and
    Gaussian `noise` beside it. An attacker has to average over the draws.
    """

    name: ClassVar[str] = "random-resizing"
    paper: ClassVar[str] = "Xie et al., ICLR 2018 (arXiv 1711.01991)"

    share: float = 0.8  # the smallest side that is drawn, as a share of the image's
    noise: float = 4 / 255

    def __post_init__(self) -> None:
        check_share(self.share)
        if self.noise < 0:
            raise DataError(f"expected noise of 0 or more, got {self.noise}")

    def purge(self, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Images:
        """The images, (batch, 3, height, width) in [0, 1], after it; gradients pass."""
        check_images(images)
        height, width = images.shape[-2:]
        share, down, across = torch.rand(3, generator=rng, device=rng.device).tolist()
        share = self.share + (1 - self.share) * share
        small = max(1, round(share * height)), max(1, round(share * width))
        shown = F.interpolate(images, size=small, mode="bilinear", antialias=True, align_corners=False) - 0.5
        top, left = round(down * (height - small[0])), round(across * (width - small[1]))
        placed = F.pad(shown, (left, width - small[1] - left, top, height - small[0] - top)) + 0.5
        grain = torch.randn(images.shape, generator=rng, device=rng.device).to(images)
        return (placed + self.noise * grain).clamp(0, 1)


def enlarged(images: Images, share: float) -> Images:
    """Images of which only a `share` of the sides' resolution is left."""
    size = images.shape[-2:]
    small = [max(1, round(share * side)) for side in size]
    less = F.interpolate(images, size=small, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(less, size=size, mode="bilinear", align_corners=False).clamp(0, 1)


def check_share(share: float) -> None:
    """Raises `DataError` for a share that leaves nothing, or all."""
    if not 0 < share < 1:
        raise DataError(f"expected a share of the sides between 0 and 1, got {share}")
