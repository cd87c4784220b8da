"""Where a study's records lie: a folder, or any place that fsspec can write to (s3://, gs://, memory:// ...)."""

from __future__ import annotations

import json
import os
from typing import Any
from uuid import uuid4

from firmground.errors import DataError, OutputError

STUDY_FILE = "study.json"


class Store:
    """JSON files by name under one folder or URL. A file is there whole or not at all."""

    def __init__(self, place: str | os.PathLike[str]) -> None:
        import fsspec

        self.place = os.fspath(place)
        try:
            self.files, self.root = fsspec.core.url_to_fs(self.place)
        except (ImportError, ValueError) as error:
            raise OutputError(f"cannot use {self.place} for records: {error}") from error

    def __repr__(self) -> str:
        return f"Store({self.place!r})"

    def __contains__(self, name: str) -> bool:
        return bool(self.files.exists(self._path(name)))

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Writes under a temporary name, then moves: a kill leaves no half-written file of that name."""
        data = (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=True) + "\n").encode()
        part = self._path(f".{name}.{uuid4().hex[:8]}.part")
        try:
            self.files.makedirs(self.root, exist_ok=True)
            self.files.pipe_file(part, data)
            self._move(part, self._path(name))
        except OSError as error:
            if self.files.exists(part):
                self.files.rm_file(part)
            raise OutputError(
                f"cannot write {name} to {self.place}: {error.strerror or error}; choose another place"
            ) from error

    def read(self, name: str) -> dict[str, Any]:
        """Reads one file; `DataError` where it is absent or damaged."""
        try:
            found = json.loads(self.files.cat_file(self._path(name)))
        except FileNotFoundError as error:
            raise DataError(f"there is no {name} in {self.place}; expected a folder of 'firmground study'") from error
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {name} in {self.place}: {error}") from error
        if not isinstance(found, dict):
            raise DataError(f"{name} in {self.place} is no JSON object")
        return found

    def names(self) -> list[str]:
        """The JSON files there, `study.json` left out, in order of their names."""
        return sorted(name for name in self._listed() if name.endswith(".json") and name != STUDY_FILE)

    def empty(self) -> bool:
        """Whether nothing lies there; hidden files, such as a kill leaves, do not count."""
        return not self._listed()

    def _listed(self) -> list[str]:
        if not self.files.exists(self.root):
            return []
        self.files.invalidate_cache(self.root)
        found = (str(path).rstrip("/").rsplit("/", 1)[-1] for path in self.files.ls(self.root, detail=False))
        return [name for name in found if not name.startswith(".")]

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _move(self, source: str, target: str) -> None:
        if "file" in (self.files.protocol if isinstance(self.files.protocol, tuple) else (self.files.protocol,)):
            os.replace(source, target)  # noqa: PTH105 - fsspec's own mv is not atomic where the target exists
        else:
            self.files.mv(source, target)
