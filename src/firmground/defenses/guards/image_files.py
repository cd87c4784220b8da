"""Reads a guard of images from its file; see `fitted_images` for the format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.defenses.guards.bdetclip import BDetCLIP
from firmground.defenses.guards.displacement import Displacement
from firmground.defenses.guards.fitted_images import SCHEMA, FittedImageGuard
from firmground.defenses.guards.guard_files import read_guard, rebuilt_interval, rebuilt_method
from firmground.defenses.guards.mahalanobis import Mahalanobis
from firmground.defenses.guards.neighbour_disagreement import NeighbourDisagreement
from firmground.defenses.guards.patch_instability import PatchInstability
from firmground.errors import AdapterError, DataError
from firmground.models.hashing import model_sha256

if TYPE_CHECKING:
    import torch

    from firmground.models.dual import DualEncoder

METHODS = (BDetCLIP, NeighbourDisagreement, Displacement, Mahalanobis, PatchInstability)


def base_of(path: str | Path) -> str:
    """The encoder that a guard of images was fitted on, as it was named then. Raises `DataError` for anything else."""
    return str(read_guard(Path(path), SCHEMA, ("base",), "image")[0]["base"])


def load_image_guard(path: str | Path, encoder: DualEncoder) -> FittedImageGuard:
    """Reads a guard and puts it before `encoder`.

    Raises `DataError` where the file is absent, damaged or no guard, `AdapterError` where it was fitted on another one.
    """
    facts, tensors = read_guard(Path(path), SCHEMA, ("base",), "image")
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


def _rebuilt(facts: dict[str, Any], tensors: dict[str, torch.Tensor], encoder: DualEncoder) -> FittedImageGuard:
    method = rebuilt_method(facts, tensors, METHODS)
    return FittedImageGuard(
        method=method.name,
        threshold=float(facts["threshold"]),
        false_flags=rebuilt_interval(facts),
        judge=method.judge(encoder, tensors),
        tensors=tensors,
        label_names=tuple(map(str, facts["label_names"])),
        templates=tuple(map(str, facts["templates"])),
        base=str(facts["base"]),
        model_sha256=str(facts["model_sha256"]),
        settings=dict(facts["settings"]),
    )
