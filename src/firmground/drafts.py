"""Folders that come whole or not at all: filled under another name, then renamed."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target`, absent or empty, once the block has ended well; else nothing is left.

    Raises `OSError` where that cannot be: the caller says of what.
    """
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        draft.mkdir(parents=True)
        yield draft
        os.replace(draft, target)  # noqa: PTH105 (Path.replace is the same, but this says that folders are meant)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
