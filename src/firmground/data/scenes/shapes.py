"""Sixteen shapes as signed distance fields, each computed once on a fine grid and then sampled for every scene.

The cost of an object does not depend on how complicated its shape is. Distances are in units of the shape's radius,
negative inside; y points down.
"""

from __future__ import annotations

import math
from functools import cache

import torch

REACH = 1.3  # the field covers [-REACH, REACH] in both directions, the shape the unit circle
_RESOLUTION = 192

SHAPES = (
    "circle", "square", "triangle", "star", "cross", "ring", "heart", "crescent", "hexagon", "arrow", "diamond",
    "flower", "drop", "bolt", "house", "tree",
)  # fmt: skip
TURNS = {"circle": 180, "ring": 180, "arrow": 180, "crescent": 180, "flower": 180, "bolt": 12, "hexagon": 30,
         "square": 12, "diamond": 12, "cross": 12}  # fmt: skip
TURN = 20  # degrees, to both sides, for the other shapes: each stays what it is when turned that far

_OUTLINES = {
    "square": ((-0.76, -0.76), (0.76, -0.76), (0.76, 0.76), (-0.76, 0.76)),
    "triangle": ((0, -1.0), (0.9, 0.58), (-0.9, 0.58)),
    "cross": (
        (-0.32, -0.95), (0.32, -0.95), (0.32, -0.32), (0.95, -0.32), (0.95, 0.32), (0.32, 0.32), (0.32, 0.95),
        (-0.32, 0.95), (-0.32, 0.32), (-0.95, 0.32), (-0.95, -0.32), (-0.32, -0.32),
    ),
    "arrow": (
        (0.98, 0), (0.15, -0.78), (0.15, -0.3), (-0.92, -0.3), (-0.92, 0.3), (0.15, 0.3), (0.15, 0.78),
    ),
    "diamond": ((0, -0.98), (0.66, 0), (0, 0.98), (-0.66, 0)),
    "bolt": ((0.12, -0.98), (-0.66, 0.18), (-0.1, 0.18), (-0.36, 0.98), (0.7, -0.28), (0.12, -0.28), (0.54, -0.98)),
    "house": (
        (0, -0.95), (0.32, -0.62), (0.32, -0.86), (0.56, -0.86), (0.56, -0.36), (0.95, 0.05), (0.6, 0.05), (0.6, 0.75),
        (-0.6, 0.75), (-0.6, 0.05), (-0.95, 0.05),
    ),
    "tree": (
        (0, -1.0), (0.5, -0.3), (0.28, -0.3), (0.78, 0.5), (0.16, 0.5), (0.16, 0.95), (-0.16, 0.95), (-0.16, 0.5),
        (-0.78, 0.5), (-0.28, -0.3), (-0.5, -0.3),
    ),
}  # fmt: skip


@cache
def fields() -> torch.Tensor:
    """The signed distances of all shapes, (shapes, resolution, resolution), for `grid_sample` with corners aligned."""
    line = torch.linspace(-REACH, REACH, _RESOLUTION)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([_field(name, x, y) for name in SHAPES])


def _field(name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    match name:
        case "circle":
            return torch.hypot(x, y) - 0.9
        case "ring":
            return (torch.hypot(x, y) - 0.68).abs() - 0.25
        case "crescent":
            return torch.maximum(torch.hypot(x - 0.2, y) - 0.85, 0.72 - torch.hypot(x - 0.64, y))
        case "flower":
            return _flower(x, y)
        case "star":
            return _polygon(_spokes(10, (1.0, 0.43)), x, y)
        case "hexagon":
            return _polygon(_spokes(6, (1.0,)), x, y)
        case "heart":
            return _polygon(_heart(), x, y)
        case "drop":
            return _polygon(_drop(), x, y)
    return _polygon(torch.tensor(_OUTLINES[name]), x, y)


def _polygon(corners: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Signed distance to a closed polygon: the nearest edge, and the parity of the edges crossed by a ray.

    The polygon is first scaled to lie within the unit circle, so that no turn takes it out of its place.
    """
    corners = corners * (0.98 / corners.norm(dim=1).max())
    nearest = torch.full_like(x, math.inf)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(corners.tolist(), corners.roll(-1, 0).tolist(), strict=True):
        ex, ey = bx - ax, by - ay
        along = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        nearest = torch.minimum(nearest, torch.hypot(x - ax - along * ex, y - ay - along * ey))
        if ey != 0:
            inside ^= ((y >= ay) != (y >= by)) & (x < ax + (y - ay) * ex / ey)
    return torch.where(inside, -nearest, nearest)


def _spokes(count: int, radii: tuple[float, ...]) -> torch.Tensor:
    angles = torch.arange(count) * (2 * math.pi / count) - math.pi / 2
    lengths = torch.tensor(radii).repeat(count // len(radii))
    return torch.stack([lengths * angles.cos(), lengths * angles.sin()], dim=1)


def _heart() -> torch.Tensor:
    t = torch.arange(64) * (2 * math.pi / 64)
    x = 16 * t.sin() ** 3
    y = 13 * t.cos() - 5 * (2 * t).cos() - 2 * (3 * t).cos() - (4 * t).cos()
    return torch.stack([x, -y - 2.0], dim=1) / 17.5


def _drop() -> torch.Tensor:
    t = torch.arange(64) * (2 * math.pi / 64)
    return torch.stack([0.88 * t.sin() * (t / 2).sin() ** 1.3, -0.95 * t.cos()], dim=1)


def _flower(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Six round petals and a small hole in the middle."""
    angles = torch.arange(6) * (math.pi / 3)
    petals = [torch.hypot(x - 0.6 * math.cos(a), y - 0.6 * math.sin(a)) - 0.34 for a in angles.tolist()]
    whole = torch.minimum(torch.stack(petals).amin(0), torch.hypot(x, y) - 0.5)
    return torch.maximum(whole, 0.2 - torch.hypot(x, y))
