"""Visual prompts: pixels that adapt a frozen classifier to new data, put on every image before it is normalised.

Or, of the form `tokens`, vectors beside those of the image's patches; see `tokens`.

Bahng et al., "Exploring Visual Prompts for Adapting Large-Scale Models", 2022 (arXiv 2203.17274): padding, a fixed and
a random patch; Chen et al., "Understanding and Improving Visual Prompting", CVPR 2023 (ILM-VP, arXiv 2211.11635): the
padding stands around a smaller image, and pixels stay valid. Departs from the first: nothing is added after
normalisation, where it would leave the range of images; a padding takes the place of the border and does not cover the
image. Patches and a full image are added to the image and the sum is cut to [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F

from firmground.errors import DataError
from firmground.models.preprocessing import SLACK, check_images
from firmground.rng import stream

if TYPE_CHECKING:
    from firmground.types import Images

Form: TypeAlias = Literal["padding", "fixed-patch", "random-patch", "full-image", "tokens"]
TOKEN_NOISE = 0.02  # the deviation of tokens before they are learned
Corner: TypeAlias = Literal["top-left", "top-right", "bottom-left", "bottom-right", "centre"]


@dataclass(frozen=True, kw_only=True)
class PromptShape:
    """Where a prompt's pixels stand on a canvas of `image_size` pixels a side.

    `width` is that of the border of a padding, `side` that of a patch, in pixels; `place` is that of a fixed patch.
    Tokens take no pixels: there are `count` in each of the first `layers` layers, of `channels` numbers each. Raises
    `DataError` for what does not fit the canvas.
    """

    form: Form
    image_size: int
    width: int = 0
    side: int = 0
    place: Corner = "top-left"
    count: int = 0
    layers: int = 0
    channels: int = 0

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise DataError(f"expected a form among {', '.join(get_args(Form))}, got {self.form!r}")
        if self.place not in get_args(Corner):
            raise DataError(f"expected a place among {', '.join(get_args(Corner))}, got {self.place!r}")
        if self.image_size < 2:
            raise DataError(f"expected a canvas of at least 2 pixels a side, got {self.image_size}")
        if self.form == "padding" and not 1 <= self.width < self.image_size / 2:
            raise DataError(
                f"a padding of {self.width} pixels leaves no image on a canvas of {self.image_size}; choose a width of "
                f"1 to {(self.image_size - 1) // 2}"
            )
        if self.form.endswith("patch") and not 1 <= self.side <= self.image_size:
            raise DataError(f"a patch of {self.side} pixels does not fit a canvas of {self.image_size}")
        if self.form == "tokens" and min(self.count, self.layers, self.channels) < 1:
            raise DataError(
                f"a prompt of tokens needs one or more, in one layer or more, got {self.count} in {self.layers} layers "
                f"of {self.channels} numbers"
            )

    @property
    def inner(self) -> int:
        """The side of the square that is left to the image."""
        return self.image_size - 2 * self.width if self.form == "padding" else self.image_size

    @property
    def tensor_shape(self) -> tuple[int, int, int]:
        """That of the prompt's pixels, or of its tokens: (layers, count, channels)."""
        if self.form == "tokens":
            return (self.layers, self.count, self.channels)
        side = self.side if self.form.endswith("patch") else self.image_size
        return (3, side, side)

    @property
    def lowest(self) -> float:
        """The least value of a pixel: 0 where the prompt stands beside the image, -1 where it is added to it."""
        return -math.inf if self.form == "tokens" else 0.0 if self.form == "padding" else -1.0

    @property
    def highest(self) -> float:
        """The greatest value of a pixel; tokens have no bounds."""
        return math.inf if self.form == "tokens" else 1.0

    @property
    def border(self) -> torch.Tensor:
        """1 where a padding stands, 0 where the image does, (1, image_size, image_size)."""
        inside = torch.zeros(1, self.inner, self.inner)
        return F.pad(inside, (self.width,) * 4, value=1.0)

    def start(self) -> torch.Tensor:
        """The raw numbers with which learning begins: zeros; small noise for tokens, which else would stay alike."""
        if self.form == "tokens":
            return TOKEN_NOISE * torch.randn(self.tensor_shape, generator=stream(0, "tokens"))
        return torch.zeros(self.tensor_shape)

    def bounded(self, raw: torch.Tensor) -> torch.Tensor:
        """Valid pixels from numbers without bounds, of `tensor_shape`; at 0 a padding is grey and a patch nothing."""
        if self.form == "tokens":
            return raw
        return raw.sigmoid() * self.border.to(raw) if self.form == "padding" else raw.tanh()

    def unbounded(self, pixels: torch.Tensor) -> torch.Tensor:
        """What `bounded` made these pixels of; pixels at a bound come back a little inside of it."""
        if self.form == "tokens":
            return pixels
        if self.form != "padding":
            return pixels.clamp(-0.999, 0.999).atanh()
        return torch.logit(pixels.clamp(0.001, 0.999)) * self.border.to(pixels)


@dataclass(frozen=True, kw_only=True, eq=False)
class VisualPrompt:
    """A prompt: its shape, and `pixels` of `shape.tensor_shape`.

    Those of a padding lie in [0, 1] and are 0 inside the border; those of the other forms lie in [-1, 1] and are added;
    those of `tokens` are any finite numbers. Raises `DataError` for others.
    """

    shape: PromptShape
    pixels: torch.Tensor

    def __post_init__(self) -> None:
        if tuple(self.pixels.shape) != self.shape.tensor_shape or not self.pixels.is_floating_point():
            raise DataError(
                f"a {self.shape.form} prompt for {self.shape.image_size} pixels has the shape "
                f"{self.shape.tensor_shape}, got {tuple(self.pixels.shape)} of {self.pixels.dtype}"
            )
        low, high = (float(value) for value in self.pixels.detach().aminmax())
        if not (low >= self.shape.lowest - SLACK and high <= self.shape.highest + SLACK and math.isfinite(low + high)):
            raise DataError(
                f"the pixels of a {self.shape.form} prompt must lie in [{self.shape.lowest:.0f}, "
                f"{self.shape.highest:.0f}], got [{low:.2f}, {high:.2f}]"
            )
        if self.shape.form == "padding" and bool(
            (self.pixels.detach() * (1 - self.shape.border.to(self.pixels))).any()
        ):
            raise DataError(f"a padding of {self.shape.width} pixels has nothing inside its border, but this one has")

    def seat(self, images: Images) -> Images:
        """The central square of images of any size, resized to what the prompt leaves to them, `shape.inner`.

        Raises `DataError` for what is no batch of RGB images in [0, 1].
        """
        check_images(images)
        (height, width), inner = images.shape[-2:], self.shape.inner
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = images[..., top : top + side, left : left + side]
        if side == inner:
            return square
        sized = F.interpolate(square, size=(inner, inner), mode="bilinear", antialias=True, align_corners=False)
        return sized.clamp(0.0, 1.0)

    def apply(self, images: Images, *, rng: torch.Generator | None = None) -> Images:
        """The prompted canvas, (batch, 3, image_size, image_size) in [0, 1], of images of any size; differentiable.

        `rng` draws each image's place of a random patch; without it, all are in the centre. Tokens leave pixels alone.
        """
        seated = self.seat(images)
        if self.shape.form == "tokens":
            return seated
        pixels = self.pixels.to(device=seated.device, dtype=seated.dtype)
        if self.shape.form == "padding":
            return F.pad(seated, (self.shape.width,) * 4) + pixels
        if self.shape.form == "full-image":
            return (seated + pixels).clamp(0.0, 1.0)
        return (seated + self._patches(pixels, len(seated), rng)).clamp(0.0, 1.0)

    def _patches(self, pixels: torch.Tensor, batch: int, rng: torch.Generator | None) -> torch.Tensor:
        """The patch on an empty canvas: (1, 3, size, size) where all images have it in one place, else one each."""
        room = self.shape.image_size - self.shape.side
        if self.shape.form == "fixed-patch" or rng is None:
            place = self.shape.place if self.shape.form == "fixed-patch" else "centre"
            top = room // 2 if place == "centre" else room * place.startswith("bottom")
            left = room // 2 if place == "centre" else room * place.endswith("right")
            return F.pad(pixels, (left, room - left, top, room - top))[None]
        starts = torch.randint(room + 1, (batch, 2), generator=rng, device=rng.device).tolist()
        return torch.stack([F.pad(pixels, (left, room - left, top, room - top)) for top, left in starts])
