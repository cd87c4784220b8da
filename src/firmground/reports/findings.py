"""What one method concludes about one target, as JSON holds it."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from firmground.types import (
    Evidence,
    Outcome,
    Readout,
    RecoveredPicture,
    RecoveredTrigger,
    RecoveredVector,
    Severity,
    Verdict,
)


def _finite(value: Any) -> Any:
    """JSON has no NaN: a number that could not be computed is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(value: float | None) -> str:
    """A score in words: three decimals, or that there is none."""
    return "unknown" if value is None else f"{value:.3f}"


Number = Annotated[float | None, BeforeValidator(_finite)]


class Model(BaseModel):
    """What every stored object shares: unknown keys of a later minor version are kept out, never an error."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    def to_json(self) -> str:
        """Indented ASCII JSON: a hostile trigger cannot smuggle control characters into a terminal."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=True, allow_nan=False)


class Target(Model):
    """What was scanned: a folder or hub id, and the sha256 of its weights; for a prompt its file, and its `base`."""

    source: str
    revision: str | None = None
    adapter: str | None = None
    base: str | None = None
    weights_sha256: str | None = None


class FoundTrigger(Model):
    """A recovered trigger; `vector` is an index into the vectors of the same finding."""

    text: str
    token_ids: tuple[int, ...]
    score: Number
    readout: Readout
    vector: int


class FoundVector(Model):
    """A recovered predefined vector."""

    readout: Readout
    values: tuple[Number, ...]


class FoundPicture(Model):
    """A recovered pattern: an RGBA PNG as base64, what it does, its score, and the share of an image it covers."""

    png: str = Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$")
    caption: str
    score: Number
    area: Number

    @property
    def uri(self) -> str:
        return f"data:image/png;base64,{self.png}"


class FoundEvidence(Model):
    """What one method found, most suspicious first."""

    triggers: tuple[FoundTrigger, ...] = ()
    vectors: tuple[FoundVector, ...] = ()
    pictures: tuple[FoundPicture, ...] = ()


class Finding(Model):
    """What one method concludes."""

    method: str
    outcome: Outcome
    score: Number
    threshold: Number
    severity: Severity
    evidence: FoundEvidence = FoundEvidence()
    doubts: tuple[str, ...] = ()
    seconds: float = 0.0
    settings: dict[str, Any] = Field(default_factory=dict)
    measurements: dict[str, Number] = Field(default_factory=dict)

    @classmethod
    def of(cls, verdict: Verdict) -> Finding:
        """The finding that holds a verdict."""
        evidence = FoundEvidence(
            triggers=tuple(
                FoundTrigger(text=t.text, token_ids=t.token_ids, score=t.score, readout=t.readout, vector=t.vector)
                for t in verdict.evidence.triggers
            ),
            vectors=tuple(FoundVector(readout=v.readout, values=v.values) for v in verdict.evidence.vectors),
            pictures=tuple(
                FoundPicture(png=p.png, caption=p.caption, score=p.score, area=p.area)
                for p in verdict.evidence.pictures
            ),
        )
        return cls(
            method=verdict.method,
            outcome=verdict.outcome,
            score=verdict.score,
            threshold=verdict.threshold,
            severity=verdict.severity,
            evidence=evidence,
            doubts=verdict.doubts,
            seconds=verdict.seconds,
            settings=plain(verdict.settings),
            measurements=dict(verdict.measurements),
        )

    def verdict(self) -> Verdict:
        """The verdict again; a null comes back as NaN."""
        triggers = tuple(
            RecoveredTrigger(
                text=t.text, token_ids=t.token_ids, score=_number(t.score), readout=t.readout, vector=t.vector
            )
            for t in self.evidence.triggers
        )
        vectors = tuple(
            RecoveredVector(readout=v.readout, values=tuple(_number(x) for x in v.values))
            for v in self.evidence.vectors
        )
        pictures = tuple(
            RecoveredPicture(png=p.png, caption=p.caption, score=_number(p.score), area=_number(p.area))
            for p in self.evidence.pictures
        )
        return Verdict(
            method=self.method,
            outcome=self.outcome,
            score=_number(self.score),
            threshold=_number(self.threshold),
            severity=self.severity,
            evidence=Evidence(triggers=triggers, vectors=vectors, pictures=pictures),
            doubts=self.doubts,
            seconds=self.seconds,
            settings=dict(self.settings),
            measurements={name: _number(value) for name, value in self.measurements.items()},
        )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def plain(value: Any) -> Any:
    """Settings as JSON can hold them."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, int, bool)):
        return str(value) if isinstance(value, str) else value
    return _finite(value) if isinstance(value, float) else str(value)


PlainSettings = Annotated[dict[str, Any], BeforeValidator(plain)]
