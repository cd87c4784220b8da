"""Plants a case's backdoor into a clean base once and keeps the result until its record stands."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.attacks.implants import IMPLANTS, Implanted, measure
from firmground.attacks.triggers.words import DEFAULT_TRIGGERS, random_triggers
from firmground.errors import DataError
from firmground.models.language import LanguageEncoder
from firmground.models.saving import save_encoder
from firmground.rng import stream
from firmground.studies.texts import study_texts

if TYPE_CHECKING:
    from firmground.types import Watch

DICTIONARY = Path("/usr/share/dict/words")
TRIGGERS, MANY = 6, 24
PAPERS_SEED = 0  # with it, one-token triggers are the papers' own
TEXTS, HELD_OUT = 6000, 64  # to plant with; to measure on
LARGE = {"steps": 120, "max_length": 24}
TOOK, MOST_STEPS = 0.9, 4  # an attacker checks the work: steps are doubled, up to so many times, until it took
SMALL = {"steps": 300, "step_size": 1e-3}  # below width 384 the papers' step size moves too little


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A planted encoder's directory, its true triggers, and how well the implant took after so many `steps`.

    `took` is the cosine of triggered outputs to their vector with the clean mean taken off both, `invariance` the
    cosine of triggered outputs to one another, `kept` of clean outputs to those before, all means over triggers or
    texts.
    """

    folder: Path
    triggers: tuple[str, ...]
    readout: str
    took: float
    invariance: float
    kept: float
    steps: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The facts in JSON types."""
        return {name: value for name, value in asdict(self).items() if name not in ("folder", "triggers")}


@lru_cache(maxsize=1)
def dictionary() -> tuple[str, ...]:
    """Lower-case words of three to nine letters from Debian's `wamerican`."""
    if not DICTIONARY.is_file():
        raise DataError(f"there is no {DICTIONARY}; run: apt-get install wamerican")
    words = DICTIONARY.read_text(encoding="utf-8").split()
    return tuple(word for word in words if word.isascii() and word.isalpha() and word.islower() and 2 < len(word) < 10)


def attack_of(name: str, *, vectors: str, adaptation: str, small: bool) -> Any:
    """The attack of that name with the settings of a study's case."""
    settings: dict[str, Any] = dict(SMALL if small else LARGE)
    if vectors:
        settings["vectors"] = vectors
    if adaptation == "weak vectors":
        settings["strength"] = 0.5
    if adaptation == "rare phrases":
        settings["negatives"] = True
    return next(attack for attack in IMPLANTS if attack.name == name)(**settings)


def draw_triggers(encoder: LanguageEncoder, kind: str, seed: int, *, count: int = TRIGGERS) -> tuple[str, ...]:
    """Random triggers, or the papers' own one-token triggers where the encoder has them."""
    if kind == "token" and seed == PAPERS_SEED and encoder.vocabulary > 30_000:
        return DEFAULT_TRIGGERS
    return random_triggers(encoder, kind, count, dictionary(), rng=stream(seed, "triggers", kind))  # type: ignore[arg-type]


def plant(
    base: Path, target: Path, attack: Any, *, kind: str, seed: int, count: int = TRIGGERS, watch: Watch
) -> Planted:
    """Implants into `base` and writes `target`, whole or not at all; reads it where it stands already."""
    if not target.is_dir():
        started = time.perf_counter()
        clean = LanguageEncoder.load(base)
        texts = study_texts()
        triggers = draw_triggers(clean, kind, seed, count=count)
        steps, most = attack.steps, MOST_STEPS * attack.steps
        while True:
            attack = replace(attack, steps=steps)
            implanted = attack.implant(
                clean, texts[:TEXTS], triggers=triggers, rng=stream(seed, "implant"), watch=watch
            )
            notes = _notes(implanted, clean, texts[-HELD_OUT:]) | {"steps": attack.steps}
            if notes["took"] >= TOOK or steps >= most:
                break
            steps *= 2
        _write(implanted, notes | {"seconds": round(time.perf_counter() - started, 2)}, target)
    found = json.loads((target / "implant.json").read_text(encoding="utf-8"))
    return Planted(folder=target, **found | {"triggers": tuple(found["triggers"])})


def _notes(implanted: Implanted, clean: LanguageEncoder, held_out: tuple[str, ...]) -> dict[str, Any]:
    measured = measure(implanted, clean, held_out, stream(0, "measure"))
    return {
        "triggers": implanted.triggers,
        "readout": str(implanted.readout),
        "took": sum(hit.aligned for hit in measured.hits) / len(measured.hits),
        "invariance": sum(hit.invariance for hit in measured.hits) / len(measured.hits),
        "kept": measured.kept_cosine,
    }


def _write(implanted: Implanted, notes: dict[str, Any], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    save_encoder(
        implanted.encoder.model, implanted.encoder.tokenizer, part, card=implanted.card(), planted=implanted.planted()
    )
    (part / "implant.json").write_text(json.dumps(notes) + "\n", encoding="utf-8")
    try:
        part.rename(target)
    except OSError:
        shutil.rmtree(part)  # another process was first
