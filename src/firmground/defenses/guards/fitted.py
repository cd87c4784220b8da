"""A fitted guard, and its file: one safetensors file whose metadata holds the rest as JSON.

Format `firmground/guard/1`: tensors `center`, `scale` (width,), `vectors` (count, width), `reach` (count,), float32;
metadata `schema`, and `guard`, a JSON object with the fields of `FittedGuard` but the tensors. Reading runs nothing.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.defenses.guards.guard_files import damaged, read_guard, rebuilt_interval
from firmground.defenses.guards.identity import Identity
from firmground.defenses.guards.lookup import Watched, hits
from firmground.defenses.guards.matching import Matcher
from firmground.models.tensor_files import write_tensors
from firmground.prompts.heads import Task
from firmground.types import Interval

if TYPE_CHECKING:
    import torch

    from firmground.defenses.guards.reading import Seen

SCHEMA = "firmground/guard/1"
TENSORS = ("center", "scale", "vectors", "reach")


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedGuard:
    """What a guard watches for, under one prompt on one encoder.

    An input is flagged where its score exceeds `threshold` or one of `triggers` stands in its token ids. `false_flags`
    is the rate on clean texts that were not calibrated on. `doubts` are reasons not to rely on it.
    """

    task: Task
    matcher: Matcher
    threshold: float
    triggers: tuple[Watched, ...]
    false_flags: Interval
    identity: Identity
    doubts: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    measurements: dict[str, float] = field(default_factory=dict)

    @property
    def watches(self) -> bool:
        """False where there is nothing to watch for: such a guard never flags."""
        return bool(self.triggers) or len(self.matcher.vectors) > 0

    def score(self, seen: Seen) -> torch.Tensor:
        """The score of every row of a batch, (batch,): higher is more suspicious."""
        return self.matcher.best(seen)

    def hits(self, seen: Seen) -> torch.Tensor:
        """Whether a watched trigger stands in each row of a batch, (batch,), bool."""
        return hits(seen.ids, self.triggers)

    def save(self, path: str | Path) -> Path:
        """Writes the guard, whole or not at all. Raises `OutputError`."""
        tensors = {name: getattr(self.matcher, name) for name in TENSORS}
        return write_tensors(path, tensors, {"schema": SCHEMA, "guard": json.dumps(self._facts())}, what="guard")

    def _facts(self) -> dict[str, Any]:
        return {
            "task": self.task.value,
            "match": self.matcher.match,
            "threshold": self.threshold,
            "triggers": [asdict(trigger) for trigger in self.triggers],
            "false_flags": asdict(self.false_flags),
            "identity": asdict(self.identity),
            "doubts": list(self.doubts),
            "settings": self.settings,
            "measurements": self.measurements,
        }


def load_guard(path: str | Path) -> FittedGuard:
    """Reads a guard's file. Raises `DataError` where it is absent, damaged or no guard."""
    path = Path(path)
    facts, tensors = read_guard(path, SCHEMA, ("identity", "match"), "prompt")
    try:
        return _rebuild(facts, {name: tensors[name] for name in TENSORS})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, "prompt", error) from error


def _rebuild(facts: dict[str, Any], tensors: dict[str, torch.Tensor]) -> FittedGuard:
    identity = Identity(**facts["identity"])
    width, count = (identity.width,), (len(tensors["vectors"]),)
    shapes = {"center": width, "scale": width, "reach": count, "vectors": count + width}
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != shapes[name] or not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ValueError(f"the tensor {name} is not {shapes[name]} of finite numbers")
    if facts["match"] not in ("distance", "sign") or not math.isfinite(facts["threshold"]):
        raise ValueError("the way of matching or the threshold is unknown")
    return FittedGuard(
        task=Task(facts["task"]),
        matcher=Matcher(match=facts["match"], **{name: tensor.float() for name, tensor in tensors.items()}),
        threshold=float(facts["threshold"]),
        triggers=tuple(_trigger(trigger) for trigger in facts["triggers"]),
        false_flags=rebuilt_interval(facts),
        identity=identity,
        doubts=tuple(str(doubt) for doubt in facts["doubts"]),
        settings=dict(facts["settings"]),
        measurements={str(name): float(value) for name, value in facts["measurements"].items()},
    )


def _trigger(facts: dict[str, Any]) -> Watched:
    rows = tuple(tuple(int(token) for token in row) for row in facts["rows"])
    if not all(rows) or not all(0 <= token < 1 << 31 for row in rows for token in row):
        raise ValueError("a trigger has no token ids")
    return Watched(text=str(facts["text"]), rows=rows)
