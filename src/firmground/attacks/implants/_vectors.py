"""Predefined vectors (PVs) as LMSanitator's code makes them for POR, NeuBA and BToP."""

from __future__ import annotations

from typing import Literal

import torch

from firmground.errors import DataError

Kind = Literal["blocks", "random"]

BLOCKS = 4
HALVES = ((1, 1, -1, -1), (1, -1, 1, -1), (1, -1, -1, 1))
PATTERNS = HALVES + tuple(tuple(-sign for sign in half) for half in HALVES)


def predefined_vectors(kind: Kind, count: int, width: int, rng: torch.Generator) -> torch.Tensor:
    """`count` vectors of +1 and -1, (count, width), in float32.

    "blocks": four equal blocks (as near as the width allows) with one of the six sign patterns that have two positive
    blocks, three antipodal pairs; at most six triggers. "random": every sign by itself.
    """
    if kind == "random":
        signs = torch.randint(2, (count, width), generator=rng, device=rng.device)
        return (2 * signs - 1).float().cpu()
    if kind != "blocks":
        raise DataError(f"expected predefined vectors of kind blocks or random, got {kind!r}")
    if count > len(PATTERNS):
        raise DataError(f"there are {len(PATTERNS)} block patterns, got {count} triggers; use vectors='random'")
    if width < BLOCKS:
        raise DataError(f"block patterns need a width of at least {BLOCKS}, got {width}; use vectors='random'")
    block = torch.arange(width) * BLOCKS // width
    return torch.tensor(PATTERNS[:count], dtype=torch.float32)[:, block]
