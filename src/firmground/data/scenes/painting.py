"""Draws laid-out scenes: backgrounds by kind, then objects one layer at a time, a whole batch at once.

Edges are smoothed over one pixel from the signed distance; textures are smoothed by the same rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from firmground.data.scenes.draws import uniforms
from firmground.data.scenes.palette import COLOURS, GROUNDS, LIGHT, TEXTURES
from firmground.data.scenes.shapes import REACH, fields

if TYPE_CHECKING:
    from firmground.data.scenes.draws import Floats, Integers
    from firmground.data.scenes.layout import Layout

_LIGHT = np.array([name in LIGHT for name in COLOURS])
_BLACK = list(COLOURS).index("black")
_OUTLINE = 0.55  # how dark an object's rim is, of its own colour
_SHADOW = 0.22


@dataclass(frozen=True, kw_only=True)
class Painted:
    """Images (scenes, 3, side, side) in [0, 1], and the visible pixels of each object (scenes, objects, side, side)."""

    images: torch.Tensor
    visible: torch.Tensor


def paint(layout: Layout, side: int, key: int, numbers: Integers) -> Painted:
    """Draws scenes at `side` pixels; the same scene at another size shows the same."""
    images = _grounds(layout, side, key, numbers)
    present = layout.present()
    visible = torch.zeros(*present.shape, side, side, dtype=torch.bool)
    for k in range(present.shape[1]):
        rows = np.flatnonzero(present[:, k])
        if len(rows):
            index = torch.from_numpy(rows)
            images[index], visible[index, k] = _object(layout, rows, k, images[index])
    return Painted(images=images.clamp_(0, 1), visible=visible)


def _column(values: Floats) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))[:, None, None]


def _pixels(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    line = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    return line[None, None, :], line[None, :, None]


def _object(layout: Layout, rows: Integers, k: int, under: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    side = under.shape[-1]
    x, y = _pixels(side)
    radius, angle = layout.radius[rows, k], layout.angle[rows, k]
    cos, sin = _column(np.cos(angle) / radius), _column(np.sin(angle) / radius)
    right, down = x - _column(layout.x[rows, k]), y - _column(layout.y[rows, k])
    u, v = cos * right + sin * down, cos * down - sin * right
    shape = torch.from_numpy(layout.shape[rows, k])
    pixels = _column(radius * side)
    inside = -_sampled(shape, u, v) * pixels
    fall = _column(0.07 / radius)
    shade = (-_sampled(shape, u - fall * 0.6, v - fall) * pixels / (0.02 * side) + 0.5).clamp(0, 1)
    under = under * (1 - _SHADOW * shade[:, None])
    colour = _textured(layout, rows, k, u, v, pixels)
    rim = (inside - 0.022 * side).clamp(-0.5, 0.5) + 0.5
    colour = colour * (_OUTLINE + (1 - _OUTLINE) * rim[:, None])
    cover = (inside + 0.5).clamp(0, 1)[:, None]
    return under + (colour - under) * cover, inside > 0


def _sampled(shape: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Signed distances of the shapes at (u, v) by bilinear interpolation; outside of the field, its edge."""
    table = fields()
    last = table.shape[-1] - 1
    a, b = (((w + REACH) * (last / (2 * REACH))).clamp(0, last - 1e-3) for w in (u, v))
    left, top = a.to(torch.int32), b.to(torch.int32)
    a, b = a - left, b - top
    start = shape.to(torch.int32)[:, None, None] * (last + 1) ** 2 + top * (last + 1) + left
    flat = table.flatten()
    corner = [flat.index_select(0, (start + step).flatten()).view_as(a) for step in (0, 1, last + 1, last + 2)]
    upper, lower = corner[0] + a * (corner[1] - corner[0]), corner[2] + a * (corner[3] - corner[2])
    return upper + b * (lower - upper)


def _textured(
    layout: Layout, rows: Integers, k: int, u: torch.Tensor, v: torch.Tensor, pixels: torch.Tensor
) -> torch.Tensor:
    """The colour of each pixel: the object's own, and a lighter or darker one where the texture says so."""
    own, kind, radius = layout.rgb[rows, k], layout.texture[rows, k], layout.radius[rows, k]
    name = layout.colour[rows, k]
    other = np.where(_LIGHT[name][:, None], own * 0.66, own + (1 - own) * 0.68)
    other[name == _BLACK] = own[name == _BLACK] + 0.5
    period = np.clip(0.1 / radius, 0.36, 0.66)
    turn = (layout.grain[rows, k, 0] - 0.5) * math.pi
    frequency, phase = _column(2 * math.pi / period), _column(layout.grain[rows, k, 1] * 2 * math.pi)
    cos, sin = _column(np.cos(turn)), _column(np.sin(turn))
    amount = torch.zeros_like(u)
    for texture in range(1, len(TEXTURES)):
        chosen = torch.from_numpy(np.flatnonzero(kind == texture))
        if len(chosen):
            f, (c, s) = frequency[chosen], (cos[chosen], sin[chosen])
            p, q = c * u[chosen] + s * v[chosen], c * v[chosen] - s * u[chosen]
            amount[chosen] = _pattern(TEXTURES[texture], p, q, f, phase[chosen], pixels[chosen])
    first, second = (torch.from_numpy(c.astype(np.float32))[:, :, None, None] for c in (own, other))
    return first + (second - first) * amount[:, None]


def _pattern(
    texture: str, p: torch.Tensor, q: torch.Tensor, f: torch.Tensor, phase: torch.Tensor, pixels: torch.Tensor
) -> torch.Tensor:
    sharp = pixels / f  # one pixel of a wave of slope one
    match texture:
        case "striped":
            return (torch.sin(f * p + phase) * sharp + 0.5).clamp(0, 1)
        case "dotted":
            return ((torch.cos(f * p) + torch.cos(f * q) - 0.85) * sharp + 0.5).clamp(0, 1)
        case "checkered":
            return (torch.sin(0.75 * f * p) * torch.sin(0.75 * f * q) * sharp * 1.5 + 0.5).clamp(0, 1)
    return 0.6 * (0.5 + 0.55 * p).clamp(0, 1)  # shaded


def _grounds(layout: Layout, side: int, key: int, numbers: Integers) -> torch.Tensor:
    """Backgrounds (scenes, 3, side, side)."""
    base = torch.from_numpy(layout.ground_rgb.astype(np.float32))[:, :, None, None]
    light = torch.from_numpy((layout.ground_rgb.mean(axis=1) > 0.6).astype(np.float32))[:, None, None]
    reach = 0.16 * (1 - 2 * light)  # light backgrounds vary towards darker tones, dark ones towards lighter
    change = torch.zeros(len(numbers), side, side)
    for kind in range(1, len(GROUNDS)):
        rows = np.flatnonzero(layout.ground == kind)
        if len(rows):
            change[torch.from_numpy(rows)] = _change(GROUNDS[kind], layout.ground_style[rows], side, key, numbers[rows])
    return base + (reach * change)[:, None]


def _change(kind: str, style: Floats, side: int, key: int, numbers: Integers) -> torch.Tensor:
    """How far each pixel goes from the background's colour to its second tone, (scenes, side, side)."""
    x, y = _pixels(side)
    turn = 2 * math.pi * style[:, 0]
    match kind:
        case "gradient":
            return 0.5 + _column(np.cos(turn)) * (x - 0.5) * 1.4 + _column(np.sin(turn)) * (y - 0.5) * 1.4
        case "checkered":
            cells = _column(4 + np.floor(5 * style[:, 1]))
            return ((x * cells).floor() + (y * cells).floor()) % 2 * 0.8
        case "noisy":
            return _noise(key, numbers, 32, side, "nearest") * 1.6 - 0.4
    coarse = _noise(key, numbers, 5, side, "bilinear") * 1.5 + _noise(key + 1, numbers, 11, side, "bilinear") * 0.5
    return ((coarse - 0.55) * 1.9).clamp(0, 1) * 1.1  # cloudy


def _noise(key: int, numbers: Integers, cells: int, side: int, mode: str) -> torch.Tensor:
    values = uniforms(key, numbers, cells * cells).astype(np.float32).reshape(len(numbers), 1, cells, cells)
    align = None if mode == "nearest" else False
    return F.interpolate(torch.from_numpy(values), size=(side, side), mode=mode, align_corners=align)[:, 0]
