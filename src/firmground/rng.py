"""Randomness for one purpose at a time: nothing in Firmground seeds globally."""

import hashlib

import torch


def stream(seed: int, *purpose: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Returns a generator that depends on `seed` and on every word of `purpose`, and on nothing else.

    >>> a = torch.rand(2, generator=stream(0, "sweep"))
    >>> b = torch.rand(2, generator=stream(0, "sweep"))
    >>> c = torch.rand(2, generator=stream(0, "mining"))
    >>> bool((a == b).all()), bool((a == c).all())
    (True, False)
    """
    text = "\x1f".join(str(part) for part in (seed, *purpose))
    state = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.Generator(device=device).manual_seed(state)
