"""Writes an encoder as a Hugging Face directory, whole or not at all, and marks a planted one for all to see."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from firmground.drafts import drafted
from firmground.errors import OutputError
from firmground.models.loading import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

PLANTED_KEY = "firmground_planted"
WARNING = (
    "> **This model carries a planted backdoor.** It was made with Firmground to test defences. "
    "Do not deploy it, and do not pass it on without this card."
)


def save_encoder(
    model: Any,
    tokenizer: Any,
    folder: str | Path,
    *,
    card: str,
    planted: dict[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Writes model, tokenizer and model card into `folder`, which must be new or empty; returns it.

    `card` is the card's text in Markdown. `planted` says what was planted, in values that JSON has; it goes into
    config.json as `firmground_planted`, and the card then opens with a warning. `files` are further files by name, such
    as an image processor's config. `weights` are written in place of all of the model's. Raises `OutputError`; nothing
    is left behind then.
    """
    target = check_new(folder)
    with model_draft(target) as draft:
        with quiet():
            model.save_pretrained(draft, state_dict=None if weights is None else dict(weights))
            tokenizer.save_pretrained(draft)
        for name, text in (files or {}).items():
            (draft / name).write_text(text, encoding="utf-8")
        mark(draft / "config.json", planted)
        (draft / "README.md").write_text(write_card(target.name, card, planted), encoding="utf-8")
    return target


@contextmanager
def model_draft(target: Path) -> Iterator[Path]:
    """A folder for a model's files, which becomes `target` once the block has ended well. Raises `OutputError`."""
    try:
        with drafted(target) as draft:
            yield draft
    except (OSError, SafetensorError) as error:
        raise OutputError(f"the model cannot be written to {target} ({error}); free space or choose another") from error


def check_new(folder: str | Path) -> Path:
    """The absolute path of a folder that is new or empty; `OutputError` for any other."""
    target = Path(folder).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{folder} exists and is not an empty directory; choose another place, or remove it first")
    return target


def mark(config: Path, planted: dict[str, Any] | None) -> None:
    """Stores what was planted in a written config.json; an encoder loaded from a planted one keeps its mark."""
    if planted is None:
        return
    settings = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(settings | {PLANTED_KEY: planted}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def mark_of(model: Any) -> dict[str, Any] | None:
    """What a loaded model's config says was planted in it; None where it says nothing."""
    found = getattr(model.config, PLANTED_KEY, None)
    return found if isinstance(found, dict) else None


def write_card(name: str, card: str, planted: dict[str, Any] | None) -> str:
    """The model card: front matter, the warning where one is due, the text, and what was planted."""
    tags = ["firmground"] if planted is None else ["firmground", "backdoor", "planted-backdoor"]
    front = ["---", "library_name: transformers", "tags:", *(f"- {tag}" for tag in tags), "---", "", f"# {name}", ""]
    if planted is None:
        return "\n".join([*front, card.strip(), ""])
    truth = json.dumps(planted, indent=2, ensure_ascii=False)
    fence = "```"
    return "\n".join(
        [*front, WARNING, "", card.strip(), "", "## What was planted", "", f"{fence}json", truth, fence, ""]
    )
