"""A learned visual prompt as one safe file, `firmground/visual-prompt/1`; docs/formats.md has its page.

Reading one runs nothing, believes nothing that it can check, and needs no model; putting it on a model does.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from firmground.errors import DataError
from firmground.models.tensor_files import plain, schema_of, write_tensors
from firmground.prompts.mappings import LabelMapping
from firmground.prompts.prompted import BaseModel, LearnedPrompt
from firmground.prompts.visual import PromptShape, VisualPrompt
from firmground.types import Interval

SCHEMA = "firmground/visual-prompt/1"
LARGEST = 1 << 28  # bytes of a prompt file: a full image of 2,048 pixels is 50 MB
LARGEST_SIDE = 4096
LATER = ("count", "layers", "channels")  # of a shape, which the first files did not name
TENSORS = ("pixels", "mapping.sources", "mapping.weight", "mapping.bias")


def save_prompt(learned: LearnedPrompt, path: str | Path) -> Path:
    """Writes a prompt, whole or not at all. Raises `OutputError`."""
    mapping = learned.mapping
    named = dict(zip(TENSORS, (learned.prompt.pixels, mapping.sources, mapping.weight, mapping.bias), strict=True))
    tensors = plain({name: value for name, value in named.items() if value is not None})
    facts = {
        "base": asdict(learned.base),
        "shape": asdict(learned.prompt.shape),
        "mapping": mapping.kind,
        "label_names": list(learned.label_names),
        "accuracy": None if learned.accuracy is None else asdict(learned.accuracy),
        "method": learned.method,
        "settings": learned.settings,
        "measurements": learned.measurements,
        "planted": learned.planted,
    }
    text = json.dumps(facts, sort_keys=True)
    metadata = {"schema": SCHEMA, "prompt": text, "sha256": content_sha256(text, tensors)}
    return write_tensors(path, tensors, metadata, what="prompt")


def load_prompt(path: str | Path) -> LearnedPrompt:
    """Reads a prompt. Raises `DataError` where the file is absent, damaged, no prompt, or contradicts itself."""
    source = Path(path)
    if not source.is_file():
        raise DataError(f"there is no prompt at {source}; expected a file that 'firmground prompt fit' wrote")
    if source.stat().st_size > LARGEST:
        raise DataError(f"{source} has {source.stat().st_size} bytes, far more than a prompt; expected {SCHEMA}")
    try:
        facts, tensors = _read(source)
        return _rebuilt(facts, tensors)
    except (
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as e:
        reason = f"it lacks {e}" if isinstance(e, KeyError) else " ".join(str(e).split())[:240]
        raise DataError(f"{source} is damaged or no visual prompt ({reason}); get it from its provider again") from e
    except DataError as error:
        raise DataError(f"{source} is no valid visual prompt: {error}") from error


def is_visual_prompt(path: str | Path) -> bool:
    """Whether a file says that it is a visual prompt."""
    return schema_of(path) == SCHEMA


def content_sha256(text: str, tensors: dict[str, torch.Tensor]) -> str:
    """The hash of a prompt's facts and tensors, in hex: each tensor as name, shape, kind and bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
        if about.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {about.get('schema')!r}, expected {SCHEMA}")
        names = list(file.keys())
        unknown = sorted(set(names) - set(TENSORS))
        if unknown:
            raise ValueError(f"it holds {unknown[0]!r}, which no prompt has")
        tensors = {name: file.get_tensor(name) for name in names}
    for name, value in tensors.items():
        if value.dtype not in (torch.float32, torch.int64):
            raise ValueError(f"{name} is of {value.dtype}, expected float32 or int64")
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{name} holds values that are not finite numbers")
    if about["sha256"] != content_sha256(about["prompt"], tensors):
        raise ValueError("its contents are not those that its hash was taken of")
    facts = json.loads(about["prompt"])
    if not isinstance(facts, dict):
        raise ValueError("its facts are no JSON object")
    return facts, tensors


def _rebuilt(facts: dict[str, Any], tensors: dict[str, torch.Tensor]) -> LearnedPrompt:
    base = _base(facts["base"])
    shape = _known(PromptShape, facts["shape"])
    for name in ("image_size", "width", "side", "count", "layers", "channels"):
        _whole(name, shape[name], least=0)
    mapping = LabelMapping(
        kind=facts["mapping"],
        classes=len(base.class_names),
        sources=tensors.get("mapping.sources"),
        weight=tensors.get("mapping.weight"),
        bias=tensors.get("mapping.bias"),
    )
    names = _texts("label_names", facts["label_names"])
    if mapping.labels != len(names):
        raise ValueError(f"its mapping gives {mapping.labels} labels, and {len(names)} have names")
    return LearnedPrompt(
        prompt=VisualPrompt(shape=PromptShape(**shape), pixels=tensors["pixels"]),
        mapping=mapping,
        base=base,
        label_names=names,
        accuracy=None if facts["accuracy"] is None else Interval(**_known(Interval, facts["accuracy"])),
        method=str(facts["method"]),
        settings=dict(facts["settings"]),
        measurements={str(name): float(value) for name, value in dict(facts["measurements"]).items()},
        planted=None if facts["planted"] is None else dict(facts["planted"]),
    )


def _base(facts: dict[str, Any]) -> BaseModel:
    known = _known(BaseModel, facts)
    _whole("image_size", known["image_size"], least=2)
    digest = known["sha256"]
    if not isinstance(digest, str) or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ValueError(f"the sha256 of its base is {str(digest)[:80]!r}")
    if not isinstance(known["source"], str) or not isinstance(known["revision"], str | None):
        raise ValueError("the name and the revision of its base are no texts")
    numbers = [*known["mean"], *known["std"], known["scale"]]
    if len(known["mean"]) != 3 or len(known["std"]) != 3 or not all(math.isfinite(number) for number in numbers):
        raise ValueError("its normalisation is not three means, three deviations and a scale")
    known |= {name: tuple(float(value) for value in known[name]) for name in ("mean", "std")}
    known |= {name: _texts(name, known[name]) for name in ("class_names", "templates")}
    if any("{}" not in template for template in known["templates"]):
        raise ValueError("a template has no {} for the name of a class")
    return BaseModel(**known)


def _known(kind: type[Any], facts: Any) -> dict[str, Any]:
    """The fields of a dataclass out of a JSON object; keys that nobody knows are left out, later ones may lack."""
    if not isinstance(facts, dict):
        raise ValueError(f"expected an object with the fields of {kind.__name__}, got {type(facts).__name__}")
    given = {field.name: field.default for field in fields(kind) if field.name in LATER} | facts
    return {field.name: given[field.name] for field in fields(kind)}


def _whole(name: str, value: Any, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST_SIDE:
        raise ValueError(f"its {name} is {str(value)[:80]}, expected {least} to {LARGEST_SIDE} pixels")


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"its {name} is no list of texts")
    return tuple(value)
