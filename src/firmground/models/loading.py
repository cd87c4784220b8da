"""Finds a Hugging Face model on disk or on the hub and loads it without running anything that came with it.

Only `config.json`, the tokenizer's JSON or SentencePiece files and `*.safetensors` are read. A pickle is refused even
where safetensors lie beside it only if the safetensors are missing; remote code is always refused.
"""

from pathlib import Path

from firmground.errors import BrokenModelError

WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json")
SAFE_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.md")


def resolve(source: str, *, revision: str | None = None) -> Path:
    """Returns the local folder of `source`: a directory, or a hub id that is downloaded (safe files only)."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(SAFE_PATTERNS)))
    except Exception as error:
        raise BrokenModelError(f"{source} is neither a directory here nor a model on the hub: {error}") from error
