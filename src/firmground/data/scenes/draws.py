"""Random numbers that depend on a seed, the number of a scene and a slot, and on nothing else.

A counter-based generator (the finaliser of SplitMix64, Steele et al., OOPSLA 2014, over a hashed counter): scene 7 is
the same scene in whatever batch it is made, and a whole batch is drawn at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from firmground.rng import stream

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def key(seed: int, purpose: str) -> int:
    """A 62-bit key for one purpose under one seed."""
    return int(torch.randint(1 << 62, (), generator=stream(seed, "scenes", purpose)))


def uniforms(key: int, numbers: Integers, slots: int) -> Floats:
    """Numbers in [0, 1), shape (scenes, slots), for the scenes of the given numbers."""
    rows = _mixed(numbers.astype(np.uint64)[:, None] * _GOLDEN + np.uint64(key))
    state = _mixed(rows + (np.arange(slots, dtype=np.uint64)[None] + np.uint64(1)) * _GOLDEN)
    scaled: Floats = (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return scaled


def picks(uniform: Floats, count: int) -> Integers:
    """The same numbers as indices below `count`."""
    return np.minimum((uniform * count).astype(np.int64), count - 1)


def _mixed(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
