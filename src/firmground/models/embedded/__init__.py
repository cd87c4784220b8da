"""Two small CLIPs that come with the package: a clean one, and one with a BadNet backdoor in it.

Both are Hugging Face `VisionTextDualEncoderModel`s (a ResNet of 32 x 32 pixels, a BERT of one layer), pretrained on
procedural scenes; `scripts/embed_clips.py` made them, and their `manifest.json` says with which seed and how good.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

Name: TypeAlias = Literal["clip-clean", "clip-badnet"]
NAMES: tuple[Name, ...] = ("clip-clean", "clip-badnet")


def embedded(name: Name) -> Path:
    """The directory of an embedded model, in the Hugging Face layout."""
    return Path(__file__).parent / name
