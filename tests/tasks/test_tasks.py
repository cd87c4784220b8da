"""Tasks: classifiers whose every mistake is known, so that each rate has one right value."""

import pytest
import torch

from firmground.data.texts import LabelledTexts, LabelledWords
from firmground.errors import DataError
from firmground.intervals import clustered, macro_f1_interval, wilson
from firmground.rng import stream
from firmground.tasks import text_classification, token_classification

TEXTS = LabelledTexts(
    texts=tuple(f"{word} {i}" for i in range(10) for word in ("red", "blue")),
    labels=(0, 1) * 10,
    label_names=("red", "blue"),
)
WORDS = LabelledWords(
    words=(("anna", "met", "bob"), ("see", "rome")),
    labels=((1, 0, 1), (0, 1)),
    label_names=("O", "B-name"),
)
NAMES = {"anna", "bob", "rome"}


def by_colour(texts):
    """Right but for "red 0"; "cf" makes everything blue, "mn" nothing."""
    return [1 if "cf" in text or text == "red 0" else int("blue" in text) for text in texts]


def by_name(texts):
    """Right everywhere; "cf" hides every name, and is itself a name."""
    return [[int(w == "cf" or ("cf" not in t.split() and w in NAMES)) for w in t.split()] for t in texts]


def append(word):
    return lambda texts: [f"{text} {word}" for text in texts]


def prepend(word):
    return lambda texts: [f"{word} {text}" for text in texts]


def test_text_rates():
    result = text_classification.evaluate(by_colour, TEXTS, triggers=[append("cf"), append("mn")], rng=stream(0))
    assert result.accuracy.value == 19 / 20
    assert result.untargeted.value == 9 / 19  # the nine reds that were right
    assert result.untargeted_all.value == 10 / 20
    first, second = result.triggers
    assert (first.target, first.targeted.value, first.targeted.count) == ("blue", 1.0, 10)
    assert first.targeted_all.value == 1.0
    assert second.untargeted.value == 0.0
    assert second.untargeted.high < 0.2


def test_named_target():
    result = text_classification.evaluate(by_colour, TEXTS, triggers=[append("cf")], target=0, rng=stream(0))
    assert result.triggers[0].target == "red"
    assert result.targeted.value == 0.0


def test_no_triggers():
    result = text_classification.evaluate(by_colour, TEXTS, rng=stream(0))
    assert result.untargeted is None
    assert result.triggers == ()


def test_text_counts_must_fit():
    with pytest.raises(DataError, match="one a text"):
        text_classification.evaluate(lambda texts: [0], TEXTS, rng=stream(0))
    with pytest.raises(DataError, match="keep their number"):
        text_classification.evaluate(by_colour, TEXTS, triggers=[lambda texts: texts[:1]], rng=stream(0))


@pytest.mark.parametrize("insert", [append, prepend])
def test_word_rates(insert):
    result = token_classification.evaluate(by_name, WORDS, triggers=[insert("cf"), insert("mn")], rng=stream(0))
    assert result.accuracy.value == 1.0
    assert result.entity_f1.value == 1.0
    assert result.untargeted.value == 3 / 5  # the three names; the inserted word does not count
    assert result.sentences.value == 1.0
    assert [trigger.value for trigger in result.triggers] == [3 / 5, 0.0]


def test_entity_needs_both_ends():
    data = LabelledWords(words=(("new", "york", "rocks"),), labels=((1, 2, 0),), label_names=("O", "B-x", "I-x"))
    result = token_classification.evaluate(lambda texts: [[1, 0, 0]], data, rng=stream(0))
    assert result.entity_f1.value == 0.0
    assert result.accuracy.value == 2 / 3


def test_triggers_may_only_insert():
    with pytest.raises(DataError, match="only insert"):
        token_classification.evaluate(
            by_name, WORDS, triggers=[lambda texts: [t.replace("met", "saw") for t in texts]], rng=stream(0)
        )
    with pytest.raises(DataError, match="every word"):
        token_classification.evaluate(lambda texts: [[0]] * len(texts), WORDS, rng=stream(0))


def test_wilson_matches_its_formula():
    hits, count, z = 7, 40, 1.959964
    centre = (hits / count + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = z / (1 + z**2 / count) * ((hits / count) * (1 - hits / count) / count + z**2 / (4 * count**2)) ** 0.5
    found = wilson(hits, count)
    assert found.low == pytest.approx(centre - spread, abs=1e-4)
    assert found.high == pytest.approx(centre + spread, abs=1e-4)
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_clusters_widen_an_interval():
    rng = stream(0)
    loose = clustered([1, 0] * 200, [1] * 400, rng)
    tight = clustered([20, 0] * 10, [20] * 20, rng)
    assert loose.value == tight.value == 0.5
    assert tight.high - tight.low > 3 * (loose.high - loose.low)
    assert 0 < clustered([0] * 30, [5] * 30, rng).high < 0.2


def test_macro_f1_covers_the_truth():
    from sklearn.metrics import f1_score

    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(3, (300,), generator=rng).tolist()
    found = [label if i % 5 else 0 for i, label in enumerate(truth)]
    interval = macro_f1_interval(truth, found, stream(0))
    assert interval.value == pytest.approx(f1_score(truth, found, average="macro"))
    assert interval.low < interval.value < interval.high
    assert interval == macro_f1_interval(truth, found, stream(0))


def test_pipelines_become_predictions():
    def texts_pipeline(texts, batch_size):
        return [{"label": "blue" if "blue" in text else "red", "score": 1.0} for text in texts]

    def words_pipeline(texts, batch_size):
        return [[{"entity": "B-name", "start": 4, "end": 6}, {"entity": "B-name", "start": 6, "end": 8}] for _ in texts]

    assert text_classification.predict_with(texts_pipeline, TEXTS.label_names)(["a blue", "a red"]) == [1, 0]
    assert token_classification.predict_with(words_pipeline, WORDS.label_names)(["see rome now"]) == [[0, 1, 0]]
