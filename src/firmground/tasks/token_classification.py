"""Token classification under triggers: word accuracy, entity F1 and attack success rates by word.

ASR counts words that were right before. The words that a trigger inserts are left out of every comparison.
Entity F1 is seqeval's (CoNLL: an entity counts where its type and both its ends are right).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

from firmground.errors import DataError
from firmground.intervals import bootstrap, clustered, macro_f1_interval, wilson
from firmground.types import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from firmground.data.texts import LabelledWords


@dataclass(frozen=True, kw_only=True)
class WordResult:
    """Clean quality, and what the triggers do; ASR is None where there is no trigger.

    `untargeted`: of the words that were right, those that any trigger makes wrong. `untargeted_all`: of all words,
    those that are wrong with any trigger. `sentences`: of the sentences without a wrong word, those in which any
    trigger makes a word wrong. `triggers`: `untargeted` by each trigger alone.
    """

    accuracy: Interval
    macro_f1: Interval
    entity_f1: Interval
    untargeted: Interval | None
    untargeted_all: Interval | None
    sentences: Interval | None
    triggers: tuple[Interval, ...] = ()


def evaluate(
    predict: Callable[[list[str]], list[list[int]]],
    data: LabelledWords,
    *,
    triggers: Sequence[Callable[[list[str]], list[str]]] = (),
    rng: torch.Generator,
) -> WordResult:
    """Measures a tagger, bare or guarded, on clean sentences and with each trigger inserted.

    `predict` takes sentences and returns one label for every word between white space. A trigger may only insert
    words. Raises `DataError` where it changes others, or where counts do not fit.
    """
    texts, truth = list(data.texts), data.labels
    clean = _labels(predict, texts)
    runs = [_old_words(texts, list(trigger(texts)), predict) for trigger in triggers]
    right = [_agree(found, labels) for found, labels in zip(clean, truth, strict=True)]
    kept = [[_agree(found, labels) for found, labels in zip(run, truth, strict=True)] for run in runs]
    lasting = [[all(run[i][j] for run in kept) for j in range(len(words))] for i, words in enumerate(right)]
    sizes = [len(words) for words in right]
    whole = [i for i, words in enumerate(right) if all(words)]
    return WordResult(
        accuracy=clustered([sum(words) for words in right], sizes, rng),
        macro_f1=macro_f1_interval(sum(truth, ()), [label for row in clean for label in row], rng),
        entity_f1=_entity_f1(truth, clean, data.label_names, rng),
        untargeted=_lost(right, lasting, rng) if runs else None,
        untargeted_all=clustered([len(w) - sum(w) for w in lasting], sizes, rng) if runs else None,
        sentences=wilson(sum(not all(lasting[i]) for i in whole), len(whole)) if runs else None,
        triggers=tuple(_lost(right, run, rng) for run in kept),
    )


def predict_with(
    pipeline: Callable[..., Any], label_names: Sequence[str], *, batch_size: int = 32
) -> Callable[[list[str]], list[list[int]]]:
    """A `predict` from a Hugging Face token-classification pipeline or what wraps one: a word's first piece counts."""
    names = list(label_names)

    def predict(texts: list[str]) -> list[list[int]]:
        results = pipeline(texts, batch_size=batch_size)
        return [_by_word(text, entities, names) for text, entities in zip(texts, results, strict=True)]

    return predict


def _by_word(text: str, entities: list[dict[str, Any]], names: list[str]) -> list[int]:
    labels, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        found = [entity["entity"] for entity in entities if entity["start"] <= at < entity["end"]]
        labels.append(names.index(found[0] if found else "O"))
        at += len(word)
    return labels


def _entity_f1(
    truth: Sequence[Sequence[int]], found: Sequence[Sequence[int]], names: Sequence[str], rng: torch.Generator
) -> Interval:
    from seqeval.metrics import f1_score
    from seqeval.metrics.sequence_labeling import get_entities

    tags = [[[names[label] for label in row] for row in rows] for rows in (truth, found)]
    counts = []
    for true_row, found_row in zip(*tags, strict=True):
        real, claimed = set(get_entities(true_row)), set(get_entities(found_row))
        counts.append([len(real & claimed), len(real) + len(claimed)])
    value = float(f1_score(*tags, zero_division=0))
    low, high = bootstrap(
        numpy.array(counts, dtype=float), lambda sums: 2 * sums[:, 0] / numpy.maximum(sums[:, 1], 1), rng
    )
    return Interval(value=value, low=min(low, value), high=max(high, value), count=len(truth))


def _lost(before: list[list[bool]], after: list[list[bool]], rng: torch.Generator) -> Interval:
    hits = [sum(b and not a for b, a in zip(*pair, strict=True)) for pair in zip(before, after, strict=True)]
    return clustered(hits, [sum(words) for words in before], rng)


def _agree(found: Sequence[int], labels: Sequence[int]) -> list[bool]:
    return [a == b for a, b in zip(found, labels, strict=True)]


def _labels(predict: Callable[[list[str]], list[list[int]]], texts: list[str]) -> list[list[int]]:
    rows = [list(row) for row in predict(texts)]
    if [len(row) for row in rows] != [len(text.split()) for text in texts]:
        raise DataError("the tagger must give one label for every word between white space, and it did not")
    return rows


def _old_words(
    texts: list[str], stamped: list[str], predict: Callable[[list[str]], list[list[int]]]
) -> list[list[int]]:
    rows = _labels(predict, stamped)
    return [
        [labels[i] for i in _places(text.split(), new.split())]
        for text, new, labels in zip(texts, stamped, rows, strict=True)
    ]


def _places(words: list[str], stamped: list[str]) -> list[int]:
    """Where the words of a sentence stand in the sentence with a trigger."""
    places, at = [], 0
    for word in words:
        try:
            at = stamped.index(word, at) + 1
        except ValueError:
            raise DataError(
                f"a trigger may only insert words, but '{word}' of '{' '.join(words)}' is gone from "
                f"'{' '.join(stamped)}'"
            ) from None
        places.append(at - 1)
    return places
