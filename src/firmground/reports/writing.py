"""Writes files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from firmground.drafts import drafted
from firmground.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """An empty file in the folder of `path`, gone afterwards unless it was renamed."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def write_atomically(path: str | Path, content: str) -> None:
    """Writes `content` as UTF-8 under a temporary name, then renames it: a kill leaves nothing half-written.

    Raises `OutputError` where the folder is missing, not writable, or the disk is full; an older file then stays.
    """
    path = Path(path)
    try:
        with _beside(path) as temporary:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place") from error


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` once the block has ended well; else nothing is left.

    Raises `OutputError` where it cannot be written, or `path` holds files.
    """
    try:
        with drafted(Path(path).absolute()) as draft:
            yield draft
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place") from error


def check_file(path: str | Path) -> None:
    """Raises `OutputError` at once if a file could not be written at `path` later."""
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; name a file")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    try:
        with _beside(path):
            pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place") from error


def check_folder(path: str | Path) -> None:
    """Raises `OutputError` at once if a new folder could not be made at `path` later."""
    path = Path(path)
    if path.is_dir() and any(path.iterdir()):
        raise OutputError(f"{path} already holds files; name a new folder")
    if path.exists() and not path.is_dir():
        raise OutputError(f"cannot write into {path}: it is a file; name a folder")
    above = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    check_file(above / path.name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
