"""Reads a guard of image classifiers from its file; see `fitted_classifiers` for the format."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from firmground.defenses.guards.base_disagreement import BaseDisagreement
from firmground.defenses.guards.double_masking import DoubleMasking
from firmground.defenses.guards.fitted_classifiers import (
    SCHEMA,
    AnyClassifier,
    FittedClassifierGuard,
    classifier_sha256,
    source_of,
)
from firmground.defenses.guards.part_swap import PartSwap
from firmground.defenses.guards.purification import Purification
from firmground.defenses.guards.sentinet import SentiNet
from firmground.defenses.guards.strip import Strip
from firmground.errors import AdapterError, DataError
from firmground.models.tensor_files import schema_of
from firmground.types import Interval

if TYPE_CHECKING:
    import torch

CLASSIFIER_GUARDS = (PartSwap, BaseDisagreement, DoubleMasking, Purification, SentiNet, Strip)
LARGEST = 1 << 30  # bytes of a guard file


def is_classifier_guard(path: str | Path) -> bool:
    """Whether a file says that it is a guard of image classifiers."""
    return schema_of(path) == SCHEMA


def load_classifier_guard(path: str | Path, classifier: AnyClassifier) -> FittedClassifierGuard:
    """Reads a guard and puts it before `classifier`.

    Raises `DataError` where the file is absent, damaged or no guard, `AdapterError` where it was fitted on another
    classifier or behind another prompt.
    """
    facts, tensors = _read(Path(path))
    here = classifier_sha256(classifier)
    if facts["sha256"] != here:
        raise AdapterError(
            f"the guard {path} was fitted on {facts['base']} ({str(facts['sha256'])[:12]}), but the classifier is "
            f"{source_of(classifier)} ({here[:12]}) or has another prompt; fit a guard on it"
        )
    try:
        return _rebuilt(facts, tensors, classifier)
    except (ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise DataError(f"{path} is damaged or no guard ({error}); fit the guard again") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise DataError(f"there is no guard at {path}; fit one and save it")
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path} has {path.stat().st_size} bytes, far more than a guard; expected {SCHEMA}")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("schema") != SCHEMA:
                raise ValueError(f"its schema is {about.get('schema')!r}, expected {SCHEMA}")
            facts = json.loads(about["guard"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if not isinstance(facts, dict) or not {"base", "sha256"} <= set(facts):
            raise ValueError("it names no classifier")
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is damaged or no guard of classifiers ({reason}); fit the guard again") from error
    return facts, tensors


def _rebuilt(
    facts: dict[str, Any], tensors: dict[str, torch.Tensor], classifier: AnyClassifier
) -> FittedClassifierGuard:
    kinds = {kind.name: kind for kind in CLASSIFIER_GUARDS}
    method: Any = kinds[facts["method"]](**facts["settings"])
    wrong = [name for name, value in tensors.items() if not value.is_floating_point() or not value.isfinite().all()]
    if wrong or not math.isfinite(facts["threshold"]):
        raise ValueError(f"{wrong[0] if wrong else 'the threshold'} is not of finite numbers")
    return FittedClassifierGuard(
        method=method.name,
        threshold=float(facts["threshold"]),
        false_flags=Interval(**{name: facts["false_flags"][name] for name in ("value", "low", "high", "count")}),
        judge=method.judge(classifier, tensors),
        classifier=classifier,
        repairs=method.repairs,
        tensors=tensors,
        label_names=tuple(map(str, facts["label_names"])),
        base=str(facts["base"]),
        sha256=str(facts["sha256"]),
        settings=dict(facts["settings"]),
    )
