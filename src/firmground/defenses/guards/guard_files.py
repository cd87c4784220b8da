"""Reads what guards have in common in their files: facts beside tensors, believed only where they fit."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from firmground.errors import DataError
from firmground.types import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

LARGEST = 1 << 30  # bytes of a guard file


def read_guard(
    path: Path, schema: str, needed: Sequence[str], kind: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The facts and the tensors of a guard's file; runs nothing.

    `needed` are facts that say what it stands before, which is a `kind`. Raises `DataError` for any other file.
    """
    if not path.is_file():
        raise DataError(f"there is no guard at {path}; expected a file that 'firmground guard fit' wrote")
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path} has {path.stat().st_size} bytes, far more than a guard; expected {schema}")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("schema") != schema:
                raise ValueError(f"its schema is {about.get('schema')!r}, expected {schema}")
            facts = json.loads(about["guard"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if not isinstance(facts, dict) or not set(needed) <= set(facts):
            raise ValueError(f"it names no {kind}")
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        raise damaged(path, kind, error) from error
    return facts, tensors


def damaged(path: Path, kind: str, error: Exception) -> DataError:
    """What to say of a file that is no guard of a `kind`, and why."""
    reason = " ".join(str(error).split())[:200]
    return DataError(f"{path} is damaged or no guard of {kind}s ({reason}); fit the guard again")


def rebuilt_method(facts: dict[str, Any], tensors: dict[str, torch.Tensor], methods: Sequence[Any]) -> Any:
    """The method, one of `methods`, with its settings. Raises `ValueError` for numbers that are not finite."""
    method = {kind.name: kind for kind in methods}[facts["method"]](**facts["settings"])
    wrong = [name for name, value in tensors.items() if not value.is_floating_point() or not value.isfinite().all()]
    if wrong or not math.isfinite(facts["threshold"]):
        raise ValueError(f"{wrong[0] if wrong else 'the threshold'} is not of finite numbers")
    return method


def rebuilt_interval(facts: dict[str, Any]) -> Interval:
    """A guard's rate of clean inputs that it flags."""
    return Interval(**{name: facts["false_flags"][name] for name in ("value", "low", "high", "count")})
