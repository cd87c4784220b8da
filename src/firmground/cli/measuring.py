"""Measures a tuned prompt, bare or guarded, for `evaluate`, `guard evaluate` and the demo."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from firmground.attacks.triggers import WordTrigger
from firmground.cli.labels import renumbered
from firmground.data.texts import LabelledTexts, LabelledWords
from firmground.rng import stream
from firmground.tasks import text_classification, token_classification

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firmground.tasks.text_classification import TextResult
    from firmground.tasks.token_classification import WordResult
    from firmground.types import Interval

TITLES = {
    "accuracy": "clean accuracy",
    "macro_f1": "macro-F1",
    "entity_f1": "entity F1",
    "untargeted": "ASR, untargeted",
    "untargeted_all": "ASR, untargeted, of all",
    "targeted": "ASR, targeted",
    "targeted_all": "ASR, targeted, of all",
    "sentences": "ASR, by sentence",
}


def measure(
    pipeline: Callable[..., Any], data: LabelledTexts | LabelledWords, triggers: Sequence[str], *, seed: int
) -> TextResult | WordResult:
    """Evaluates a Hugging Face pipeline, or what wraps one, on clean data and with each trigger inserted."""
    rng = stream(seed, "evaluate")
    stamps = [_stamp(trigger, seed) for trigger in triggers]
    if isinstance(data, LabelledTexts):
        predict = text_classification.predict_with(pipeline, data.label_names)
        return text_classification.evaluate(predict, data, triggers=stamps, rng=rng)
    tag = token_classification.predict_with(pipeline, data.label_names)
    return token_classification.evaluate(tag, data, triggers=stamps, rng=rng)


def rates(result: TextResult | WordResult) -> dict[str, Interval]:
    """The measured rates by name, those that there are."""
    found = {name: getattr(result, name, None) for name in TITLES}
    return {name: interval for name, interval in found.items() if interval is not None}


def plain(result: TextResult | WordResult) -> dict[str, Any]:
    """The rates as JSON holds them."""
    return {name: asdict(interval) for name, interval in rates(result).items()}


def aligned(data: LabelledTexts | LabelledWords, label_names: Sequence[str]) -> LabelledTexts | LabelledWords:
    """The same data with its labels in a model's order. Raises `DataError` for a label that the model has not."""
    new = renumbered(data.label_names, label_names)
    if isinstance(data, LabelledTexts):
        return replace(data, labels=tuple(new[label] for label in data.labels), label_names=tuple(label_names))
    rows = tuple(tuple(new[label] for label in row) for row in data.labels)
    return replace(data, labels=rows, label_names=tuple(label_names))


def _stamp(trigger: str, seed: int) -> Callable[[list[str]], list[str]]:
    def stamp(texts: list[str]) -> list[str]:
        return WordTrigger(text=trigger).insert(texts, rng=stream(seed, "insert", trigger))

    return stamp
