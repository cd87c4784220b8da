"""Which encoder and which prompt a guard belongs to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from firmground.errors import AdapterError
from firmground.prompts.tuned import fingerprint


@dataclass(frozen=True, kw_only=True)
class Identity:
    """`base` names the encoder, `base_sha256` is that of its weight files (None where it was never saved), `width`
    its hidden size; `prompt_sha256` is that of the tensors of the prompt and the head."""

    base: str
    base_sha256: str | None
    width: int
    prompt_sha256: str


def identify(pipeline: Any, base_sha256: str | None = None) -> Identity:
    """The identity of a pipeline's model; the weights are hashed on disk unless their hash is given."""
    model = pipeline.model
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    base = str(inner.name_or_path or "memory")
    return Identity(
        base=base,
        base_sha256=base_sha256 or fingerprint(base),
        width=int(inner.config.hidden_size),
        prompt_sha256=prompt_sha256(model),
    )


def prompt_sha256(model: Any) -> str:
    """SHA-256 of what PEFT would save of the model's adapter; of a model without one, of what is not its encoder."""
    if hasattr(model, "get_base_model"):
        from peft import get_peft_model_state_dict

        tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    else:
        inside = f"{model.base_model_prefix}."
        tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(inside)}
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_same(guard: Identity, here: Identity) -> None:
    """Raises `AdapterError` where a guard was fitted on another encoder, or under another prompt."""
    known = guard.base_sha256 and here.base_sha256
    if guard.width != here.width or (known and guard.base_sha256 != here.base_sha256):
        raise AdapterError(
            f"the guard was fitted on {guard.base} ({_short(guard)}), but the pipeline's encoder is {here.base} "
            f"({_short(here)}); fit a guard on {here.base}"
        )
    if guard.prompt_sha256 != here.prompt_sha256:
        raise AdapterError(
            f"the guard was fitted under another prompt on {guard.base} ({guard.prompt_sha256[:12]}..., here "
            f"{here.prompt_sha256[:12]}...), and prompts shift the vectors that it watches; fit a guard under this one"
        )


def _short(identity: Identity) -> str:
    return f"width {identity.width}, weights {(identity.base_sha256 or 'never saved')[:12]}"
