"""Reads a guard of images from its file; see `fitted_images` for the format."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from firmground.defenses.guards.bdetclip import BDetCLIP
from firmground.defenses.guards.displacement import Displacement
from firmground.defenses.guards.fitted_images import SCHEMA, FittedImageGuard
from firmground.defenses.guards.neighbour_disagreement import NeighbourDisagreement
from firmground.defenses.guards.patch_instability import PatchInstability
from firmground.errors import AdapterError, DataError
from firmground.models.hashing import model_sha256
from firmground.models.tensor_files import schema_of
from firmground.types import Interval

if TYPE_CHECKING:
    import torch

    from firmground.models.dual import DualEncoder

METHODS = (BDetCLIP, NeighbourDisagreement, Displacement, PatchInstability)
LARGEST = 1 << 30  # bytes of a guard file


def is_image_guard(path: str | Path) -> bool:
    """Whether a file says that it is a guard of images."""
    return schema_of(path) == SCHEMA


def base_of(path: str | Path) -> str:
    """The encoder that a guard of images was fitted on, as it was named then. Raises `DataError` for anything else."""
    return str(_read(Path(path))[0]["base"])


def load_image_guard(path: str | Path, encoder: DualEncoder) -> FittedImageGuard:
    """Reads a guard and puts it before `encoder`.

    Raises `DataError` where the file is absent, damaged or no guard, `AdapterError` where it was fitted on another one.
    """
    facts, tensors = _read(Path(path))
    here = model_sha256(encoder.model)
    if facts.get("model_sha256") != here:
        fitted_on = f"{facts.get('base')} (weights {str(facts.get('model_sha256'))[:12]})"
        raise AdapterError(
            f"the guard {path} was fitted on {fitted_on}, but the encoder is {encoder.source} (weights {here[:12]}); "
            f"fit a guard on {encoder.source}"
        )
    try:
        return _rebuilt(facts, tensors, encoder)
    except (ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise DataError(f"{path} is damaged or no guard ({error}); fit the guard again") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise DataError(f"there is no guard at {path}; expected a file that 'firmground guard fit' wrote")
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path} has {path.stat().st_size} bytes, far more than a guard; expected {SCHEMA}")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("schema") != SCHEMA:
                raise ValueError(f"its schema is {about.get('schema')!r}, expected {SCHEMA}")
            facts = json.loads(about["guard"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if not isinstance(facts, dict) or "base" not in facts:
            raise ValueError("it names no encoder")
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is damaged or no guard of images ({reason}); fit the guard again") from error
    return facts, tensors


def _rebuilt(facts: dict[str, Any], tensors: dict[str, torch.Tensor], encoder: DualEncoder) -> FittedImageGuard:
    kinds = {kind.name: kind for kind in METHODS}
    method: Any = kinds[facts["method"]](**facts["settings"])
    wrong = [name for name, value in tensors.items() if not value.is_floating_point() or not value.isfinite().all()]
    if wrong or not math.isfinite(facts["threshold"]):
        raise ValueError(f"{wrong[0] if wrong else 'the threshold'} is not of finite numbers")
    return FittedImageGuard(
        method=method.name,
        threshold=float(facts["threshold"]),
        false_flags=Interval(**{name: facts["false_flags"][name] for name in ("value", "low", "high", "count")}),
        judge=method.judge(encoder, tensors),
        tensors=tensors,
        label_names=tuple(map(str, facts["label_names"])),
        templates=tuple(map(str, facts["templates"])),
        base=str(facts["base"]),
        model_sha256=str(facts["model_sha256"]),
        settings=dict(facts["settings"]),
    )
