"""Keeps what a scan found beside the planted encoder that it scanned, so that studies on the same one scan once."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from firmground.types import Evidence, Readout, RecoveredTrigger, RecoveredVector

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from firmground.types import Verdict


def has_evidence(folder: Path) -> bool:
    """Whether the encoder in `folder` was scanned."""
    return _path(folder).is_file()


def keep_evidence(folder: Path, verdicts: Sequence[Verdict]) -> None:
    """Writes the evidence of all verdicts on the encoder in `folder` beside it, as one."""
    path = _path(folder)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(asdict(merged([verdict.evidence for verdict in verdicts]))) + "\n", encoding="utf-8")
    part.replace(path)


def kept_evidence(folder: Path) -> Evidence:
    """What `keep_evidence` wrote."""
    facts = json.loads(_path(folder).read_text(encoding="utf-8"))
    return Evidence(
        triggers=tuple(
            RecoveredTrigger(**{**t, "token_ids": tuple(t["token_ids"]), "readout": Readout(t["readout"])})
            for t in facts["triggers"]
        ),
        vectors=tuple(
            RecoveredVector(readout=Readout(v["readout"]), values=tuple(v["values"])) for v in facts["vectors"]
        ),
    )


def merged(found: Sequence[Evidence]) -> Evidence:
    """The evidence of several verdicts as one; a trigger that two methods found counts once."""
    triggers: dict[str, RecoveredTrigger] = {}
    vectors: list[RecoveredVector] = []
    for evidence in found:
        for t in evidence.triggers:
            moved = RecoveredTrigger(
                text=t.text,
                token_ids=t.token_ids,
                score=t.score,
                readout=t.readout,
                vector=t.vector + len(vectors),
            )
            triggers.setdefault(t.text, moved)
        vectors += evidence.vectors
    return Evidence(triggers=tuple(triggers.values()), vectors=tuple(vectors))


def _path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.evidence.json")
