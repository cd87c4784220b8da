"""The names of what can be in a scene, and the colours behind them (RGB in [0, 1])."""

from __future__ import annotations

COLOURS = {
    "red": (0.88, 0.10, 0.12),
    "orange": (1.00, 0.52, 0.02),
    "yellow": (1.00, 0.88, 0.08),
    "green": (0.12, 0.65, 0.18),
    "blue": (0.10, 0.28, 0.90),
    "purple": (0.52, 0.12, 0.72),
    "pink": (1.00, 0.48, 0.74),
    "brown": (0.43, 0.24, 0.09),
    "white": (0.98, 0.98, 0.98),
    "black": (0.05, 0.05, 0.06),
}
TEXTURES = ("plain", "striped", "dotted", "checkered", "shaded")
SIZES = ("small", "medium", "large")
PLACES = (
    "top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip
GROUNDS = ("plain", "gradient", "noisy", "checkered", "cloudy")
GROUND_COLOURS = {
    "grey": (0.55, 0.55, 0.56),
    "light grey": (0.82, 0.82, 0.83),
    "dark grey": (0.24, 0.24, 0.26),
    "beige": (0.87, 0.79, 0.62),
    "navy": (0.07, 0.09, 0.28),
    "pale green": (0.70, 0.88, 0.74),
    "pale blue": (0.68, 0.82, 0.94),
    "lavender": (0.80, 0.74, 0.92),
    "teal": (0.10, 0.42, 0.44),
    "maroon": (0.33, 0.06, 0.12),
    "olive": (0.40, 0.41, 0.18),
}
LIGHT = frozenset({"yellow", "white", "pink"})  # their stripes and dots are darker, those of the others lighter
