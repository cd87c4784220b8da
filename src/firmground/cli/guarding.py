"""What the guard commands and the demo share: evidence from a scan, fitting, wrapping, answering."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from firmground.cli.catalogue import method
from firmground.cli.options import GUARD_TEXTS, clean_texts, pick_device
from firmground.cli.settings import build
from firmground.defenses.guards.fitted import load_guard
from firmground.defenses.guards.pipeline import GuardedPipeline
from firmground.errors import DataError
from firmground.models.loading import resolve, weights_sha256
from firmground.prompts.tuned import Tuned, load_tuned
from firmground.reports.scan import ScanReport
from firmground.rng import stream
from firmground.types import Evidence, RecoveredTrigger, RecoveredVector

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from firmground.types import Watch


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What a guard is fitted to."""

    encoder: str
    revision: str | None
    adapter: Path
    scan: Path
    texts: Path | None
    method: str


def fit(what: Fitting, *, settings: Sequence[str], seed: int, device: str, watch: Watch) -> Any:
    """Fits a guard. Raises `DataError` where the scan was of other weights."""
    (chosen,) = build([method("guards", what.method)], settings)
    scan = ScanReport.read(what.scan)
    scanned, here = scan.target.weights_sha256, weights_sha256(resolve(what.encoder, revision=what.revision))
    if scanned is not None and scanned != here:
        raise DataError(
            f"{what.scan} is a scan of other weights ({scanned[:12]}...) than {what.encoder} holds ({here[:12]}...); "
            "scan that encoder first"
        )
    texts = clean_texts(what.texts, seed, GUARD_TEXTS)
    tuned = on_device(load_tuned(what.encoder, what.adapter, revision=what.revision), device)
    return chosen.fit(tuned, evidence_of(scan), texts, rng=stream(seed, "guard"), watch=watch)


def guarded(
    guard: Path, adapter: Path, *, encoder: str | None, revision: str | None, device: str
) -> tuple[GuardedPipeline, Tuned]:
    """A guarded pipeline, and the tuned prompt inside it."""
    fitted = load_guard(guard)
    tuned = on_device(load_tuned(encoder or fitted.identity.base, adapter, revision=revision), device)
    return GuardedPipeline(tuned, fitted), tuned


def on_device(tuned: Tuned, device: str) -> Tuned:
    """The same prompt on a device."""
    tuned.model.to(pick_device(device))
    return tuned


def evidence_of(scan: ScanReport) -> Evidence:
    """The evidence of all findings of a scan as one; a trigger that several methods found counts once."""
    triggers: list[RecoveredTrigger] = []
    vectors: list[RecoveredVector] = []
    known: set[str] = set()
    for finding in scan.findings:
        evidence = finding.verdict().evidence
        new = [trigger for trigger in evidence.triggers if trigger.text not in known]
        known.update(trigger.text for trigger in new)
        triggers += [replace(trigger, vector=trigger.vector + len(vectors)) for trigger in new]
        vectors += evidence.vectors
    return Evidence(triggers=tuple(triggers), vectors=tuple(vectors))


def answers(pipeline: GuardedPipeline, texts: Sequence[str]) -> list[dict[str, Any]]:
    """What a guarded pipeline says of each text, in plain JSON types."""
    return [
        {
            "text": text,
            "answer": result["label"] if isinstance(result, dict) else _entities(result),
            **(result["guard"] if isinstance(result, dict) else result.guard),
        }
        for text, result in zip(texts, pipeline(list(texts), batch_size=32), strict=True)
    ]


def _entities(result: Sequence[dict[str, Any]]) -> list[str]:
    return [f"{entity['word']}: {entity.get('entity') or entity.get('entity_group')}" for entity in result]
