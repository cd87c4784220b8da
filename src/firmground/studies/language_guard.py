"""The study `language_guard`: prompts tuned on planted MiniLMs, attacked without and with a guard.

A case is an attack, a task and a tuning method. The encoders are those that the study `language_scan` plants with
LMSanitator's six triggers, each scanned once, by the default scan; the guard is fitted to what that scan found and to
clean texts of the task, never to the planted triggers. Both are kept in the folder that FIRMGROUND_POPULATION names.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from firmground.attacks.triggers.words import WordTrigger
from firmground.data.corpora import dialogue_topics, fortune_categories
from firmground.data.slots import slot_sentences
from firmground.data.texts import LabelledTexts, LabelledWords, sample, split
from firmground.defenses.guards import GuardedPipeline, PVGuard
from firmground.models.language import LanguageEncoder
from firmground.prompts.soft import PrefixTuning, PromptTuning, PTuning
from firmground.rng import stream
from firmground.studies.evidence import has_evidence, keep_evidence, kept_evidence
from firmground.studies.guard_report import report_guard
from firmground.studies.language_scan import (
    ATTACKS,
    REAL,
    base_of,
    default_scan,
    plant_case,
    real,
)  # fmt: skip
from firmground.studies.population import population_folder
from firmground.studies.runner import Study
from firmground.tasks import text_classification, token_classification

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.prompts.tuned import Tuned
    from firmground.studies.planting import Planted
    from firmground.types import Evidence, Watch

TASKS = ("slot_sentences", "dialogue_topics", "fortune_categories")
TUNINGS = {"prompt-tuning": PromptTuning, "p-tuning": PTuning, "prefix-tuning": PrefixTuning}
EPOCHS = 6
TRAIN, CLEAN, TEST, MORE = 300, 200, 100, 200  # texts to tune on, for the guard, to attack, and to count flags on too
WORDS = 32  # at most in a text
FRESH_SEED = 1  # cells under seed 0 were looked at while the guard was written
BATCH, REPEATS = 32, 9  # of the timing


@dataclass(frozen=True, kw_only=True)
class Case:
    """One cell of the grid."""

    attack: str
    task: str
    tuning: str
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A task's texts, cut into parts that share no text."""

    train: LabelledTexts | LabelledWords
    clean: tuple[str, ...]
    test: LabelledTexts | LabelledWords
    more: tuple[str, ...]


def cases() -> tuple[Case, ...]:
    """The attacks take turns, so that workers side by side do not wait for, or make, the same planted encoder."""
    return tuple(Case(attack=a, task=t, tuning=m, seed=FRESH_SEED) for t in TASKS for m in TUNINGS for a in ATTACKS)


def run_case(case: Case, watch: Watch, *, folder: str) -> dict[str, Any]:
    """Plants, scans, tunes, fits the guard, and measures the task bare and guarded."""
    place = Path(folder)
    planted = plant_case(real(case.attack), base_of(REAL, place, watch), place, watch)
    encoder = LanguageEncoder.load(planted.folder)
    evidence = _evidence(encoder, planted, real(case.attack).seed, watch)
    parts = parts_of(case.task, case.seed)
    tuned = TUNINGS[case.tuning](epochs=EPOCHS).fit(
        encoder, parts.train, rng=stream(case.seed, "tune", case.task, case.tuning), watch=watch
    )
    guard = PVGuard().fit(tuned, evidence, parts.clean, rng=stream(case.seed, "guard"), watch=watch)
    bare, guarded = tuned.pipeline(), GuardedPipeline(tuned, guard)
    found = {t.text for t in evidence.triggers}
    return {
        "implant": planted.to_json(),
        "named": sum(t in found for t in planted.triggers) / len(planted.triggers),
        "evidence": sorted(found),
        "validation_accuracy": tuned.measurements["validation_accuracy"],
        "bare": _measured(bare, parts, planted.triggers, tuned, case.seed),
        "guarded": _measured(guarded, parts, planted.triggers, tuned, case.seed),
        **_flags(guarded, [*parts.test.texts, *parts.more], found),
        "guard": {
            "threshold": guard.threshold,
            "effective": guard.measurements["effective"],
            "own_false_flags": asdict(guard.false_flags),
            "doubts": list(guard.doubts),
        },
        **_timed(bare, guarded, list(parts.test.texts)),
    }


def parts_of(task: str, seed: int) -> Parts:
    """The parts of a task, always the same under one seed."""
    if task == "slot_sentences":
        made = slot_sentences(TRAIN + CLEAN + MORE, stream(seed, "slots"))
        texts = made.texts
        return Parts(
            train=made.select(range(TRAIN)),
            clean=texts[TRAIN : TRAIN + CLEAN],
            test=slot_sentences(TEST, stream(seed, "slots, held out"), held_out=True),
            more=texts[TRAIN + CLEAN :],
        )
    makers: dict[str, Callable[[], LabelledTexts]] = {
        "dialogue_topics": dialogue_topics,
        "fortune_categories": partial(fortune_categories, max_words=WORDS),
    }
    data = makers[task]()
    data = sample(data, len(data), stream(seed, "order", task))
    train, rest = split(data, TRAIN / len(data), stream(seed, "train", task))
    test, rest = split(rest, TEST / len(rest), stream(seed, "test", task))
    rest = sample(rest, CLEAN + MORE, stream(seed, "rest", task))
    clean, more = split(rest, min(CLEAN / len(rest), 0.5), stream(seed, "clean", task))
    return Parts(train=train, clean=clean.texts, test=test, more=more.texts)


def _evidence(encoder: LanguageEncoder, planted: Planted, seed: int, watch: Watch) -> Evidence:
    """What the default scan finds, all its methods together; the scan study may have left it with the encoder."""
    if not has_evidence(planted.folder):
        keep_evidence(planted.folder, default_scan(encoder, seed, watch))
    return kept_evidence(planted.folder)


def _measured(pipeline: Any, parts: Parts, triggers: tuple[str, ...], tuned: Tuned, seed: int) -> dict[str, Any]:
    """Clean accuracy and untargeted ASR with their intervals: of all triggers together and of each."""
    stamps = [_stamp(text, seed) for text in triggers]
    rng, names = stream(seed, "intervals"), tuned.label_names
    if isinstance(parts.test, LabelledTexts):
        predict = text_classification.predict_with(pipeline, names, batch_size=BATCH)
        texts = text_classification.evaluate(predict, parts.test, triggers=stamps, rng=rng)
        accuracy, attacked, each = texts.accuracy, texts.untargeted, [e.untargeted for e in texts.triggers]
    else:
        tag = token_classification.predict_with(pipeline, names, batch_size=BATCH)
        words = token_classification.evaluate(tag, parts.test, triggers=stamps, rng=rng)
        accuracy, attacked, each = words.accuracy, words.untargeted, list(words.triggers)
    return {
        "accuracy": asdict(accuracy),
        "asr": asdict(attacked) if attacked else None,
        "asr_by_trigger": dict(zip(triggers, (interval.value for interval in each), strict=True)),
    }


def _stamp(text: str, seed: int) -> Callable[[list[str]], list[str]]:
    return lambda texts: WordTrigger(text=text).insert(texts, rng=stream(seed, "insert", text))


def _flags(guarded: GuardedPipeline, texts: list[str], triggers: set[str]) -> dict[str, Any]:
    """How many clean texts the guard flags, and which words it deletes from them.

    `clean_natural` counts flagged texts from which only recovered triggers were deleted: texts that hold by chance a
    word that fires, such as the Q of "Q:", the first piece of "qt".
    """
    results = guarded(texts, batch_size=BATCH)
    flags = [result["guard"] if isinstance(result, dict) else result.guard for result in results]
    removed = [set(flag["removed"]) for flag in flags if flag["flagged"]]
    return {
        "clean_flagged": len(removed),
        "clean_natural": sum(bool(words) and words <= triggers for words in removed),
        "clean_texts": len(flags),
        "clean_removed": sorted(set().union(*removed)),
    }


def _timed(bare: Any, guarded: GuardedPipeline, texts: list[str]) -> dict[str, Any]:
    """CPU seconds of a clean batch, bare and guarded by turns; batches that are flagged are no clean ones."""
    flags = [r["guard"] if isinstance(r, dict) else r.guard for r in guarded(texts, batch_size=BATCH)]
    batch = [text for text, flag in zip(texts, flags, strict=True) if not flag["flagged"]][:BATCH]
    times: dict[str, list[float]] = {"bare": [], "guarded": []}
    for turn in range(2 * REPEATS):
        name, pipeline = (("bare", bare), ("guarded", guarded))[(turn + turn // 2) % 2]
        started = time.process_time()
        pipeline(batch, batch_size=BATCH)
        times[name].append(time.process_time() - started)
    return {
        "bare_seconds": median(times["bare"]),
        "guarded_seconds": median(times["guarded"]),
        "overhead": median(times["guarded"]) / median(times["bare"]) - 1,
    }


def language_guard() -> Study:
    """ASR, clean accuracy, false flags and overhead of the guard, cell by cell."""
    work = partial(run_case, folder=population_folder())
    return Study(name="language_guard", cases=cases(), run_case=work, report=report_guard)
