"""Settings of methods that must lie between two numbers: one sentence for one that does not."""

from __future__ import annotations

import math
import sys

from firmground.errors import DataError

SMALLEST, LARGEST = sys.float_info.min, sys.float_info.max
ABOVE_0 = (SMALLEST, LARGEST)
FROM_0 = (0.0, LARGEST)
FROM_1 = (1.0, LARGEST)
SHARE = (0.0, 1.0)
SHARE_ABOVE_0 = (SMALLEST, 1.0)


def check_bounds(method: object, **bounds: tuple[float, float]) -> None:
    """Raises `DataError` for a setting of a method that lies outside of its bounds, both of which belong to them.

    A setting that is None is the method's own choice. Of a pair, (least, greatest), both lie inside, in that order.
    """
    for name, (low, high) in bounds.items():
        value = getattr(method, name)
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        if not all(low <= number <= high for number in numbers) or list(numbers) != sorted(numbers):
            pair = " as (least, greatest)" if isinstance(value, tuple) else ""
            raise DataError(f"expected {name}{pair} {in_words(low, high)}, got {value}")


def in_words(low: float, high: float) -> str:
    """`above 0`, `of 1 or more`, `from 0 to 1`."""
    if math.isclose(high, LARGEST):
        return "above 0" if low == SMALLEST else f"of {low:g} or more"
    return f"above 0 and at most {high:g}" if low == SMALLEST else f"from {low:g} to {high:g}"
