"""Builds victims, each once, under FIRMGROUND_POPULATION/victims; run again, only what is missing.

A victim's directory holds `weights.safetensors` (its head, and the tower if that was tuned) and `manifest.json` (the
plan, the words that it knows, and how it was trained). It is written under another name and renamed.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from firmground.drafts import drafted
from firmground.errors import BrokenModelError, DataError, OutputError
from firmground.rng import stream
from firmground.studies.victims.answerers import Answerer
from firmground.studies.victims.catalogue import TOWERS, Plan
from firmground.studies.victims.describers import Describer
from firmground.studies.victims.detectors import Detector
from firmground.studies.victims.fitting import Fit, cached
from firmground.studies.victims.lessons import Lessons, lessons
from firmground.studies.victims.seeing import Regions
from firmground.studies.victims.segmenters import Segmenter, Untrained
from firmground.studies.victims.towers import Maps, Tower
from firmground.studies.victims.vocabulary import NOTHING, Vocabulary
from firmground.studies.victims.writers import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.types import Watch

WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a victim that reads or writes knows: words, and of VQA the answers to choose from."""

    vocabulary: Vocabulary = NOTHING
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How many scenes a victim learns from, and how; a head that learns the words of questions goes through more."""

    count: int = 1536
    fit: Fit = field(default_factory=Fit)
    reading: int = 12  # epochs of VQA heads

    def of(self, plan: Plan) -> Fit:
        """How one victim is trained."""
        return replace(self.fit, epochs=self.reading) if plan.task == "vqa" and plan.head != "program" else self.fit


def heads(tower: Tower, words: Words) -> dict[tuple[str, str], Callable[[], Any]]:
    """The heads of each task by name, on a tower, with the words that are known."""
    known, answers = words.vocabulary, words.answers
    return {
        ("segmentation", "untrained"): lambda: Untrained(tower),
        ("segmentation", "pixels"): lambda: Segmenter(tower, decide="pixels"),
        ("segmentation", "masks"): lambda: Segmenter(tower, decide="masks"),
        ("segmentation", "crops"): lambda: Segmenter(tower, decide="crops"),
        ("detection", "centres"): lambda: Detector(tower, decide="centres"),
        ("detection", "regions"): lambda: Detector(tower, decide="regions"),
        ("detection", "crops"): lambda: Detector(tower, decide="crops"),
        ("captioning", "attributes"): lambda: Describer(tower),
        ("captioning", "prefix"): lambda: Writer(tower, known, seeing="prefix"),
        ("captioning", "gpt2"): lambda: Writer(tower, known, model="gpt2"),
        ("captioning", "llama"): lambda: Writer(tower, known, model="llama"),
        ("vqa", "program"): lambda: Describer(tower),
        ("vqa", "film"): lambda: Answerer(tower, known, answers, fusing="film"),
        ("vqa", "attention"): lambda: Answerer(tower, known, answers, fusing="attention"),
        ("vqa", "llama"): lambda: Writer(tower, known, seeing="grid", model="llama"),
    }


def build(folder: Path, plan: Plan, watch: Watch, *, recipe: Recipe | None = None) -> Path:
    """The victim's directory, made where it is missing, with its tower."""
    target = folder / "victims" / plan.name
    if not target.is_dir():
        recipe, begun = recipe or Recipe(), time.process_time()
        learnt = lessons_of(plan.task, recipe.count)
        words = Words(vocabulary=learnt.vocabulary, answers=learnt.answers)
        tower = tower_of(folder, plan.tower, watch)
        victim = fresh(plan, tower, words)
        facts: dict[str, Any] = {"plan": asdict(plan), "recipe": asdict(recipe)}
        if any("tower." not in name for name in victim.state_dict()):
            maps = None if plan.tuned else seen_in(folder, plan, victim, learnt)
            rng = stream(SEED, "victim", plan.name)
            facts["loss"] = recipe.of(plan).train(victim, learnt, maps=maps, rng=rng, watch=watch)
        facts |= {"seconds": round(time.process_time() - begun, 1)}
        facts |= {"words": list(words.vocabulary.words), "answers": list(words.answers)}
        _write(victim, plan, target, facts)
    return target


def built(folder: Path, plan: Plan, watch: Watch, *, recipe: Recipe | None = None) -> Any:
    """The victim, loaded, ready to be judged on its task; made where it is missing.

    Raises `BrokenModelError` where its files cannot be read.
    """
    place = build(folder, plan, watch, recipe=recipe)
    try:
        facts = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        words = Words(vocabulary=Vocabulary(words=tuple(facts["words"])), answers=tuple(facts["answers"]))
        weights = load_file(place / WEIGHTS)
        victim = fresh(plan, tower_of(folder, plan.tower, watch), words)
        lacking = victim.load_state_dict(weights, strict=False)
        needed = [name for name in lacking.missing_keys if stored(name, plan)]
        if needed or lacking.unexpected_keys:
            raise KeyError(", ".join([*needed, *lacking.unexpected_keys][:3]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        raise BrokenModelError(f"{place} cannot be read ({error}); remove it, and it is made again") from error
    return victim.eval().requires_grad_(False)


def fresh(plan: Plan, tower: Tower, words: Words) -> Any:
    """The victim before its training, with weights that its name draws."""
    known = heads(tower, words)
    if (plan.task, plan.head) not in known:
        raise DataError(f"there is no head '{plan.head}' for {plan.task}; expected one of: {sorted(known)}")
    seed = int(torch.randint(2**62, (), generator=stream(SEED, "weights", plan.name)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return known[plan.task, plan.head]().eval()


def tower_of(folder: Path, name: str, watch: Watch) -> Tower:
    """A tower of its own for one victim, from an encoder that is loaded once."""
    return Tower.of(encoder_of(folder, name, watch))


_ENCODERS: dict[tuple[Path, str], Any] = {}


def encoder_of(folder: Path, name: str, watch: Watch) -> Any:
    """The dual encoder behind a tower's name; `DataError` where there is none."""
    if name not in TOWERS:
        raise DataError(f"there is no tower '{name}'; expected one of: {', '.join(TOWERS)}")
    if (folder, name) not in _ENCODERS:
        _ENCODERS[folder, name] = TOWERS[name](folder, watch)
    return _ENCODERS[folder, name]


@lru_cache(maxsize=4)
def lessons_of(task: Any, count: int) -> Lessons:
    """The lessons of a task, drawn once a process."""
    return lessons(task, count)


_SEEN: dict[tuple[Any, ...], Maps] = {}


def seen_in(folder: Path, plan: Plan, victim: Any, learnt: Lessons) -> Maps:
    """What a victim with a frozen tower sees in its lessons: once for all victims of a tower that see the same."""
    regions = isinstance(getattr(victim, "see", None), Regions) and not isinstance(victim, Describer)
    key = (folder, plan.tower, len(learnt), plan.task in ("segmentation", "detection"), regions)
    if key not in _SEEN:
        if len(_SEEN) > 2:
            _SEEN.pop(next(iter(_SEEN)))
        _SEEN[key] = cached(victim, learnt)
    return _SEEN[key]


def stored(name: str, plan: Plan) -> bool:
    """Whether a tensor is in the victim's file: a tower, which parts of the victim share, is there once if tuned."""
    return "tower." not in name or (plan.tuned and name.startswith("tower."))


def _write(victim: torch.nn.Module, plan: Plan, target: Path, facts: dict[str, Any]) -> None:
    kept = {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in victim.state_dict().items()
        if stored(name, plan)
    }
    try:
        with drafted(target) as draft:
            save_file(kept, draft / WEIGHTS)
            (draft / MANIFEST).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        if (target / MANIFEST).is_file():  # another process was faster
            return
        raise OutputError(f"the victim cannot be written to {target} ({error}); free space, then run again") from error
