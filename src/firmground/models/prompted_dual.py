"""A dual encoder whose image tower reads token prompts, on disk: `firmground/prompted-encoder/1`; see docs/formats.md.

A folder holds the encoder as it is without them, in the Hugging Face layout, under `encoder/`, and the prompts beside
it. transformers has no class that reads them, and would load the encoder without: so the folder itself has no
config.json, and `from_pretrained` refuses it. `DualEncoder.load` reads it, and every command takes it for an encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from firmground.errors import BrokenModelError, DataError
from firmground.models.inspecting import ENCODER, PROMPTS, inside
from firmground.models.loading import weights_sha256
from firmground.models.saving import check_new, model_draft, save_encoder, write_card
from firmground.models.tensor_files import write_tensors
from firmground.models.token_prompts import BUFFER, attach

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

SCHEMA = "firmground/prompted-encoder/1"
LARGEST = 1 << 28  # bytes of prompts: a ViT-L's of 50 tokens a layer are 5 MB
TENSOR = "tokens"
USE = """

The encoder lies in `encoder/` as it was, **without** what the cleaning did: that is in `prompts.safetensors`, vectors
that the image tower reads beside an image. Load this folder, not that one:

```python
from firmground.models.dual import DualEncoder

encoder = DualEncoder.load("THIS FOLDER")  # encoder.model is the transformers model, with the prompts in place
```
"""


def save_prompted(
    model: Any,
    tokens: torch.Tensor,
    tokenizer: Any,
    folder: str | Path,
    *,
    card: str,
    planted: dict[str, Any] | None,
    files: Mapping[str, str],
) -> Path:
    """Writes a model and the tokens that it reads, (layers, count, width), for `DualEncoder.load`, whole or not at all.

    The rest is as in `save_encoder`.
    """
    target = check_new(folder)
    weights = {name: value for name, value in model.state_dict().items() if name.rpartition(".")[2] != BUFFER}
    with model_draft(target) as draft:
        bare = "The encoder without its prompts: see the folder that this one lies in."
        save_encoder(model, tokenizer, draft / ENCODER, card=bare, planted=planted, files=files, weights=weights)
        facts = {"schema": SCHEMA, "encoder_sha256": weights_sha256(draft / ENCODER)}
        write_tensors(draft / PROMPTS, {TENSOR: tokens}, facts, what="prompts")
        (draft / "README.md").write_text(write_card(target.name, card + USE, planted), encoding="utf-8")
    return target


def put_prompts(model: Any, folder: Path) -> None:
    """Lets a model that was read from `folder / ENCODER` read the prompts of `folder`.

    Raises `BrokenModelError` for prompts that are damaged, of another encoder, or do not fit.
    """
    tokens, told = _read(inside(folder, PROMPTS))
    if told != weights_sha256(folder / ENCODER):
        raise BrokenModelError(
            f"the prompts of {folder} were learned on an encoder of other weights than those in {ENCODER}/; get a "
            f"complete and unchanged copy of both"
        )
    try:
        attach(model.vision_model, tokens, str(folder))
    except DataError as error:
        raise BrokenModelError(str(error)) from error


def _read(path: Path) -> tuple[torch.Tensor, str]:
    """The prompts, (layers, count, width), and the hash of the encoder that they belong to."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has {path.stat().st_size} bytes, far more than prompts")
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            if facts.get("schema") != SCHEMA:
                raise ValueError(f"its schema is {facts.get('schema')!r}, expected {SCHEMA}")
            tokens = file.get_tensor(TENSOR)
        if tokens.ndim != 3 or 0 in tokens.shape or not tokens.is_floating_point() or not tokens.isfinite().all():
            raise ValueError(f"its tokens are no finite numbers of shape (layers, count, width): {tuple(tokens.shape)}")
    except (SafetensorError, OSError, ValueError) as error:
        raise BrokenModelError(f"{path} holds no prompts that can be used ({error}); get a complete copy") from error
    return tokens, facts.get("encoder_sha256", "")
