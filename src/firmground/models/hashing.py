"""Which model is this? The hash of its weights in memory, the same wherever the model lies on disk."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def model_sha256(model: torch.nn.Module) -> str:
    """SHA-256, in hex, of a model's tensors in the order of their names: each as name, shape and float32 values."""
    digest = hashlib.sha256()
    state = model.state_dict()
    for name in sorted(state):
        value = state[name].detach().cpu()
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update((value.float() if value.is_floating_point() else value).contiguous().numpy().tobytes())
    return digest.hexdigest()
