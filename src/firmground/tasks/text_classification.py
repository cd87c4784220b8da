"""Text classification under triggers: clean accuracy, macro-F1 and attack success rates.

Untargeted ASR is LMSanitator's (NDSS 2024): of the texts classified right, those that any of the triggers flips.
Targeted ASR counts only texts that are not of the target class. Beside each stands the rate over all texts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firmground.errors import DataError
from firmground.intervals import clustered, macro_f1_interval, wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from firmground.data.texts import LabelledTexts
    from firmground.types import Interval


@dataclass(frozen=True, kw_only=True)
class TriggerEffect:
    """What one trigger does. `target` names the label it drives most texts to (or the one that was asked about)."""

    untargeted: Interval  # of the texts that were right: those it makes wrong
    untargeted_all: Interval  # of all texts: those that are wrong with it
    target: str
    targeted: Interval  # of the texts not of the target class: those it turns into it
    targeted_all: Interval  # of all texts: those that are of the target class with it


@dataclass(frozen=True, kw_only=True)
class TextResult:
    """Clean accuracy (CA), macro-F1, and ASR by any trigger and by each; ASR is None where there is no trigger."""

    accuracy: Interval
    macro_f1: Interval
    untargeted: Interval | None
    untargeted_all: Interval | None
    targeted: Interval | None
    targeted_all: Interval | None
    triggers: tuple[TriggerEffect, ...] = ()


def evaluate(
    predict: Callable[[list[str]], list[int]],
    data: LabelledTexts,
    *,
    triggers: Sequence[Callable[[list[str]], list[str]]] = (),
    target: int | None = None,
    rng: torch.Generator,
) -> TextResult:
    """Measures a classifier, bare or guarded, on clean texts and with each trigger inserted.

    `predict` returns one label a text; each trigger returns as many texts as it gets. `target` is the label of the
    targeted ASR; without it, each trigger's is the label that it drives most texts to. Raises `DataError` where a
    count does not fit.
    """
    texts, truth = list(data.texts), list(data.labels)
    clean = _labels(predict, texts)
    right = [found == label for found, label in zip(clean, truth, strict=True)]
    runs = [_labels(predict, _inserted(trigger, texts)) for trigger in triggers]
    aims = [_aim(run) if target is None else target for run in runs]
    effects = tuple(_effect(run, truth, right, aim, data.label_names) for run, aim in zip(runs, aims, strict=True))
    wrong = [any(run[i] != truth[i] for run in runs) for i in range(len(truth))]
    hits = [sum(run[i] == aim != truth[i] for run, aim in zip(runs, aims, strict=True)) for i in range(len(truth))]
    chances = [sum(aim != truth[i] for aim in aims) for i in range(len(truth))]
    reached = [sum(run[i] == aim for run, aim in zip(runs, aims, strict=True)) for i in range(len(truth))]
    return TextResult(
        accuracy=wilson(sum(right), len(truth)),
        macro_f1=macro_f1_interval(truth, clean, rng),
        untargeted=wilson(sum(w and r for w, r in zip(wrong, right, strict=True)), sum(right)) if runs else None,
        untargeted_all=wilson(sum(wrong), len(truth)) if runs else None,
        targeted=clustered(hits, chances, rng) if runs else None,
        targeted_all=clustered(reached, [len(runs)] * len(truth), rng) if runs else None,
        triggers=effects,
    )


def predict_with(
    pipeline: Callable[..., Any], label_names: Sequence[str], *, batch_size: int = 32
) -> Callable[[list[str]], list[int]]:
    """A `predict` from a Hugging Face text-classification pipeline or what wraps one."""

    def predict(texts: list[str]) -> list[int]:
        return [list(label_names).index(result["label"]) for result in pipeline(texts, batch_size=batch_size)]

    return predict


def _effect(run: list[int], truth: list[int], right: list[bool], aim: int, label_names: Sequence[str]) -> TriggerEffect:
    wrong = [found != label for found, label in zip(run, truth, strict=True)]
    others = [found for found, label in zip(run, truth, strict=True) if label != aim]
    return TriggerEffect(
        untargeted=wilson(sum(w and r for w, r in zip(wrong, right, strict=True)), sum(right)),
        untargeted_all=wilson(sum(wrong), len(truth)),
        target=label_names[aim],
        targeted=wilson(sum(found == aim for found in others), len(others)),
        targeted_all=wilson(sum(found == aim for found in run), len(run)),
    )


def _aim(run: list[int]) -> int:
    return min(Counter(run).items(), key=lambda item: (-item[1], item[0]))[0]


def _labels(predict: Callable[[list[str]], list[int]], texts: list[str]) -> list[int]:
    labels = list(predict(texts))
    if len(labels) != len(texts):
        raise DataError(f"the classifier gave {len(labels)} labels for {len(texts)} texts; it must give one a text")
    return labels


def _inserted(trigger: Callable[[list[str]], list[str]], texts: list[str]) -> list[str]:
    stamped = list(trigger(texts))
    if len(stamped) != len(texts):
        raise DataError(f"a trigger gave {len(stamped)} texts for {len(texts)}; it must keep their number")
    return stamped
