"""The operations that augmentation policies are made of, on batches: each image with a magnitude of its own.

After Cubuk et al., "AutoAugment", CVPR 2019, arXiv 1805.09501, with Pillow's meaning of each operation. Images are
(batch, 3, height, width) in [0, 1] and magnitudes (batch,), in the units that each function names. What an affine map
brings in from outside is grey.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from firmground.types import Images

LUMA = (0.299, 0.587, 0.114)
LEAST = 0.5 / 255  # what differs by less is one grey value


def affine(images: Images, xx: torch.Tensor, xy: torch.Tensor, yx: torch.Tensor, yy: torch.Tensor) -> Images:
    """Reads each pixel (x, y), from the centre, at (xx x + xy y, yx x + yy y); all (batch,), lengths in pixels."""
    height, width = images.shape[-2:]
    zero = torch.zeros_like(xx)
    rows = [xx, xy * height / width, zero, yx * width / height, yy, zero]
    return resampled(images, torch.stack(rows, dim=1).view(-1, 2, 3))


def resampled(images: Images, matrices: torch.Tensor) -> Images:
    """The images read at an affine grid, (batch, 2, 3), in torch's coordinates from -1 to 1."""
    grid = F.affine_grid(matrices.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images - 0.5, grid, align_corners=False).add(0.5).clamp(0, 1)


def shear_x(images: Images, by: torch.Tensor) -> Images:
    """Slants by so many pixels a row."""
    one, zero = torch.ones_like(by), torch.zeros_like(by)
    return affine(images, one, by, zero, one)


def shear_y(images: Images, by: torch.Tensor) -> Images:
    """Slants by so many pixels a column."""
    one, zero = torch.ones_like(by), torch.zeros_like(by)
    return affine(images, one, zero, by, one)


def translate_x(images: Images, by: torch.Tensor) -> Images:
    """Moves across by so many widths."""
    one, zero = torch.ones_like(by), torch.zeros_like(by)
    return resampled(images, torch.stack([one, zero, 2 * by, zero, one, zero], dim=1).view(-1, 2, 3))


def translate_y(images: Images, by: torch.Tensor) -> Images:
    """Moves down by so many heights."""
    one, zero = torch.ones_like(by), torch.zeros_like(by)
    return resampled(images, torch.stack([one, zero, zero, zero, one, 2 * by], dim=1).view(-1, 2, 3))


def rotate(images: Images, by: torch.Tensor) -> Images:
    """Turns by so many degrees."""
    cosine, sine = (by * math.pi / 180).cos(), (by * math.pi / 180).sin()
    return affine(images, cosine, -sine, sine, cosine)


def mixed(images: Images, other: Images, share: torch.Tensor) -> Images:
    """`share` of the images and the rest of `other`; shares above one lead away from it."""
    return (other + share.to(images).view(-1, 1, 1, 1) * (images - other)).clamp(0, 1)


def grey(images: Images) -> Images:
    """The brightness as the eye sees it, (batch, 1, height, width)."""
    weights = torch.tensor(LUMA, device=images.device, dtype=images.dtype).view(3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def brightness(images: Images, share: torch.Tensor) -> Images:
    """0 is black, 1 the image."""
    return mixed(images, torch.zeros_like(images), share)


def colour(images: Images, share: torch.Tensor) -> Images:
    """0 is grey, 1 the image."""
    return mixed(images, grey(images).expand_as(images), share)


def contrast(images: Images, share: torch.Tensor) -> Images:
    """0 is the image's mean brightness, 1 the image."""
    return mixed(images, grey(images).mean(dim=(2, 3), keepdim=True).expand_as(images), share)


def sharpness(images: Images, share: torch.Tensor) -> Images:
    """0 is blurred by a 3 x 3 kernel but for the border, 1 the image."""
    kernel = torch.ones(3, 1, 3, 3, device=images.device, dtype=images.dtype) / 13
    kernel[:, :, 1, 1] = 5 / 13
    smooth = images.clone()
    if min(images.shape[-2:]) > 2:
        smooth[..., 1:-1, 1:-1] = F.conv2d(images, kernel, groups=3)
    return mixed(images, smooth, share)


def posterize(images: Images, bits: torch.Tensor) -> Images:
    """Keeps so many bits of eight."""
    step = (2.0 ** (8 - bits.to(images).round())).view(-1, 1, 1, 1)
    return ((images * 255).round() / step).floor() * step / 255


def solarize(images: Images, threshold: torch.Tensor) -> Images:
    """Inverts what is as bright as the threshold, in [0, 1], or brighter."""
    return torch.where(images < threshold.to(images).view(-1, 1, 1, 1), images, 1 - images)


def autocontrast(images: Images, unused: torch.Tensor) -> Images:
    """Stretches each channel from 0 to 1; a flat one stays."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    flat = high - low < LEAST
    return torch.where(flat, images, (images - low) / (high - low).clamp(min=LEAST))


def equalize(images: Images, unused: torch.Tensor) -> Images:
    """Makes each channel's 256 grey values about equally frequent, as Pillow does."""
    values = (images * 255).round().long().flatten(2)  # (batch, 3, pixels)
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, values, torch.ones_like(values))
    place = torch.arange(256, device=images.device) * (counts > 0)
    last = counts.gather(2, place.amax(dim=2, keepdim=True))
    step = (values.shape[2] - last) // 255
    before = counts.cumsum(dim=2) - counts
    table = ((before + step // 2) // step.clamp(min=1)).clamp(max=255)
    changed = table.gather(2, values).view(images.shape).to(images) / 255
    return torch.where((step == 0).unsqueeze(-1), images, changed)


def invert(images: Images, unused: torch.Tensor) -> Images:
    """The negative."""
    return 1 - images
