"""Reads a poisoning's manifest again: which pairs were changed, and the trigger, ready to be stamped."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from firmground.attacks.poisoning.poisoned import FORMAT
from firmground.attacks.triggers import IMAGE_TRIGGERS, ImageTrigger, Patch
from firmground.errors import DataError

MANIFEST = "manifest.json"
LARGEST = 4096  # pixels of a side


@dataclass(frozen=True, kw_only=True, eq=False)
class Manifest:
    """What was done to a set: by which `attack`, with which `trigger`, towards which `target`, in which `rows`.

    `image_size` is the side at which images were stamped, None where the manifest does not say; `whole` is the manifest
    as it was written.
    """

    attack: str
    target: str
    trigger: ImageTrigger
    rows: tuple[int, ...]
    image_size: int | None
    whole: dict[str, Any]

    def planted(self) -> dict[str, Any]:
        """What goes into the config of a model trained on the set: the manifest without its rows."""
        return {key: value for key, value in self.whole.items() if key != "changed"} | {"poisons": len(self.rows)}


def read_manifest(path: str | Path) -> Manifest:
    """Reads a manifest file. Raises `DataError` for anything else."""
    try:
        whole = json.loads(Path(path).read_text(encoding="utf-8"))
        if whole["format"] != FORMAT:
            raise ValueError(f"its format is {whole['format']!r}")
        rows = tuple(int(entry["row"]) for entry in whole["changed"])
        trigger = rebuilt_trigger(whole["trigger"])
        size = whole.get("image_size")
        if size is not None and not (isinstance(size, int) and 0 < size <= LARGEST):
            raise ValueError(f"its image_size is {size!r}")
        return Manifest(
            attack=str(whole["attack"]),
            target=str(whole["target"]),
            trigger=trigger,
            rows=rows,
            image_size=size,
            whole=whole,
        )
    except OSError as error:
        raise DataError(f"cannot read the manifest {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a manifest that 'firmground poison' wrote ({error})") from error


def find_manifest(source: str | Path) -> Manifest | None:
    """The manifest that lies beside a table of pairs, or in a folder of them; None where there is none."""
    place = Path(source)
    path = (place if place.is_dir() else place.parent) / MANIFEST
    try:
        ours = path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        ours = False
    return read_manifest(path) if ours else None


def rebuilt_trigger(described: dict[str, Any]) -> ImageTrigger:
    """The trigger whose class and settings a manifest names. Raises `ValueError`, `KeyError`, `TypeError` for none."""
    settings = dict(described)
    kinds = {kind.__name__: kind for kind in (*IMAGE_TRIGGERS, Patch)}
    kind = kinds[settings.pop("method")]
    if "pattern" in settings:
        settings["pattern"] = torch.tensor(settings["pattern"], dtype=torch.float32) / 255
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in settings.items() if name in known})
