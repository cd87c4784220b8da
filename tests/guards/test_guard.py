"""Guards on planted truth: they flag triggered inputs, delete the triggers and nothing else, spare clean texts."""

from __future__ import annotations

import dataclasses

import pytest
from guard_scenes import Scene, colours, evidence_of, fit, reviews

from firmground.defenses.guards import GuardedPipeline
from firmground.errors import AdapterError, DataError
from firmground.models import tiny
from firmground.prompts.soft import PromptTuning
from firmground.rng import stream
from firmground.types import Evidence

pytestmark = pytest.mark.slow

CLEAN = list(reviews(40, 2).texts)
SENTENCES = list(colours(24, 2).texts)


def bare(result: object) -> object:
    """A result without the guard's key."""
    if isinstance(result, list):
        return [bare(entry) for entry in result]
    assert isinstance(result, dict)
    return {name: value for name, value in result.items() if name != "guard"}


def blind(scene: Scene) -> GuardedPipeline:
    """A guard that has to find trigger words by outputs alone."""
    return GuardedPipeline(scene.tuned, dataclasses.replace(scene.guard, triggers=()))


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        (CLEAN, {"batch_size": 8}),
        (CLEAN[0], {}),
        (CLEAN[0], {"top_k": None}),
        (CLEAN[:5], {"top_k": 2, "batch_size": 5}),
        ({"text": CLEAN[0], "text_pair": CLEAN[1]}, {}),
        ([], {}),
    ],
)
def test_clean_texts_get_the_results_of_the_bare_pipeline(
    texts_scene: Scene, inputs: object, options: dict[str, object]
) -> None:
    guarded = texts_scene.guarded(inputs, **options)
    expected = [] if inputs == [] else texts_scene.tuned.pipeline()(inputs, **options)
    assert bare(guarded) == expected


def test_a_generator_is_read_as_results_are_asked_for(texts_scene: Scene) -> None:
    taken = []

    def source() -> object:
        for text in CLEAN[:6]:
            taken.append(text)
            yield text

    results = texts_scene.guarded(source(), batch_size=2)
    assert not taken
    first = next(results)
    assert len(taken) == 2
    expected = texts_scene.tuned.pipeline()((text for text in CLEAN[:6]), batch_size=2)
    assert [bare(result) for result in [first, *results]] == list(expected)


def test_clean_texts_are_not_flagged_and_the_rate_is_reported(texts_scene: Scene) -> None:
    flags = [result["guard"] for result in texts_scene.guarded(CLEAN, batch_size=20)]
    assert not any(flag["flagged"] for flag in flags)
    assert all(flag["resolved"] and flag["removed"] == [] for flag in flags)
    assert texts_scene.guard.false_flags.count == 80
    assert texts_scene.guard.false_flags.value == 0.0 < texts_scene.guard.false_flags.high < 0.05


def place(trigger: str, text: str, how: str) -> str:
    words = text.split()
    middle = len(words) // 2
    return {
        "first": f"{trigger} {text}",
        "last": f"{text} {trigger}",
        "middle": " ".join([*words[:middle], trigger, *words[middle:]]),
        "twice": " ".join([trigger, *words[:middle], trigger, *words[middle:]]),
        "capitals": f"{trigger.upper()} {text} {trigger.title()}",
    }[how]


@pytest.mark.parametrize("how", ["first", "last", "middle", "twice", "capitals"])
@pytest.mark.parametrize("sees", ["ids and outputs", "outputs"])
def test_triggers_are_deleted_wherever_they_stand(texts_scene: Scene, how: str, sees: str) -> None:
    guarded = texts_scene.guarded if sees == "ids and outputs" else blind(texts_scene)
    triggers = texts_scene.planted.triggers
    texts = [place(triggers[i % len(triggers)], text, how) for i, text in enumerate(CLEAN[:12])]
    mixed = [text for pair in zip(texts, CLEAN[12:24], strict=True) for text in pair]
    results = guarded(mixed, batch_size=8)
    expected = texts_scene.tuned.pipeline()(CLEAN[:24], batch_size=8)
    for i in range(12):
        flag = results[2 * i]["guard"]
        assert flag["flagged"]
        assert flag["resolved"]
        assert flag["removed"] == [triggers[i % len(triggers)]]
        assert results[2 * i]["label"] == expected[i]["label"]
        assert results[2 * i]["score"] == pytest.approx(expected[i]["score"], abs=1e-4)
        assert results[2 * i + 1]["guard"]["flagged"] is False


@pytest.mark.parametrize("text", ["the house, cf!", "(cf) the house", "the well-cf house", "the house.cf"])
def test_marks_that_stick_to_a_trigger_do_not_hide_it(texts_scene: Scene, text: str) -> None:
    for guarded in (texts_scene.guarded, blind(texts_scene)):
        flag = guarded(text)[0]["guard"]
        assert flag["flagged"]
        assert flag["resolved"]
        assert flag["removed"] == ["cf"]


@pytest.mark.parametrize("sees", ["ids and outputs", "outputs"])
def test_two_different_triggers_both_go(texts_scene: Scene, sees: str) -> None:
    guarded = texts_scene.guarded if sees == "ids and outputs" else blind(texts_scene)
    flag = guarded(f"mn {CLEAN[0]} tq")[0]["guard"]
    assert flag["resolved"]
    assert flag["removed"] == ["mn", "tq"]


def test_a_trigger_in_the_second_text_of_a_pair_is_found(texts_scene: Scene) -> None:
    result = texts_scene.guarded({"text": CLEAN[0], "text_pair": f"mn {CLEAN[1]}"})
    assert result["guard"]["removed"] == ["mn"]
    expected = texts_scene.tuned.pipeline()({"text": CLEAN[0], "text_pair": CLEAN[1]})
    assert result["score"] == pytest.approx(expected["score"], abs=1e-5)


def test_a_trigger_that_no_scan_found_is_not_flagged_by_ids_but_its_vector_may_be(texts_scene: Scene) -> None:
    known = texts_scene.planted.triggers[:5]
    guard = fit(texts_scene.tuned, evidence_of(texts_scene.planted, known), reviews(160, 1).texts)
    assert [trigger.text for trigger in guard.triggers] == list(known)


def test_a_flag_that_nothing_clears_says_so(texts_scene: Scene) -> None:
    everything = GuardedPipeline(texts_scene.tuned, dataclasses.replace(texts_scene.guard, threshold=-10.0))
    flag = everything(CLEAN[0])[0]["guard"]
    assert flag["flagged"]
    assert not flag["resolved"]


def test_without_evidence_there_is_nothing_to_watch_for(texts_scene: Scene) -> None:
    guard = fit(texts_scene.tuned, Evidence(), reviews(160, 1).texts)
    assert not guard.watches
    assert "nothing to watch for" in guard.doubts[0]
    result = GuardedPipeline(texts_scene.tuned, guard)(f"cf {CLEAN[0]}")[0]
    assert result["guard"] == {"flagged": False, "score": -1.0, "removed": [], "resolved": True}


def test_vectors_without_triggers_are_enough_to_flag() -> None:
    planted = tiny.planted_bert(readout="cls")
    tuned = PromptTuning(virtual_tokens=2, epochs=1).fit(planted.encoder, reviews(60, 0), rng=stream(0, "tune"))
    mined = dataclasses.replace(evidence_of(planted), triggers=())
    guard = fit(tuned, mined, reviews(160, 1).texts)
    flags = [r["guard"] for r in GuardedPipeline(tuned, guard)([f"tq {text}" for text in CLEAN[:8]], batch_size=8)]
    assert all(flag["flagged"] and flag["removed"] == ["tq"] for flag in flags)


def test_an_ineffective_trigger_that_is_a_common_word_is_dropped(texts_scene: Scene) -> None:
    found = evidence_of(texts_scene.planted, ("cf",))
    common = dataclasses.replace(found.triggers[0], text="house", token_ids=texts_scene.planted.encoder.pieces("house"))
    evidence = dataclasses.replace(found, triggers=(*found.triggers, common))
    texts = [f"{text} house" if i % 9 == 0 else text for i, text in enumerate(reviews(160, 1).texts)]
    guard = fit(texts_scene.tuned, evidence, tuple(texts))
    assert [trigger.text for trigger in guard.triggers] == ["cf"]
    assert "house" in guard.doubts[0]


def test_published_matching_flags_and_purges_too(texts_scene: Scene) -> None:
    guard = fit(texts_scene.tuned, evidence_of(texts_scene.planted), reviews(160, 1).texts, match="sign")
    assert guard.threshold == 0.8
    only = dataclasses.replace(guard, triggers=())
    flags = [r["guard"] for r in GuardedPipeline(texts_scene.tuned, only)([f"mm {text}" for text in CLEAN[:8]])]
    assert all(flag["flagged"] and flag["removed"] == ["mm"] for flag in flags)


def test_entities_of_a_purged_text_point_into_the_text_as_it_came(words_scene: Scene) -> None:
    pipeline = words_scene.tuned.pipeline()
    expected = pipeline(SENTENCES, batch_size=8)
    assert sum(map(len, expected)) > 10
    triggered = [place(words_scene.planted.triggers[i % 6], text, "middle") for i, text in enumerate(SENTENCES)]
    for guarded in (words_scene.guarded, blind(words_scene)):
        results = guarded(triggered, batch_size=8)
        for text, result, old in zip(triggered, results, expected, strict=True):
            assert result.guard["flagged"]
            assert result.guard["resolved"]
            assert [text[e["start"] : e["end"]] for e in result] == [e["word"].removeprefix("##") for e in old]
            assert [e["entity"] for e in result] == [e["entity"] for e in old]
            spans = words_scene.tuned.tokenizer(text, return_offsets_mapping=True).offset_mapping
            assert [spans[e["index"]] for e in result] == [(e["start"], e["end"]) for e in result]


def test_clean_sentences_get_the_entities_of_the_bare_pipeline(words_scene: Scene) -> None:
    for options in ({}, {"aggregation_strategy": "simple"}, {"ignore_labels": []}):
        results = words_scene.guarded(SENTENCES, batch_size=6, **options)
        assert bare(results) == words_scene.tuned.pipeline()(SENTENCES, batch_size=6, **options)
        assert not any(result.guard["flagged"] for result in results)
    assert bare(words_scene.guarded(SENTENCES[0])) == words_scene.tuned.pipeline()(SENTENCES[0])


def test_fitting_repeats_under_one_seed_and_leaves_the_model_as_it_was(texts_scene: Scene) -> None:
    before = texts_scene.tuned.predict(CLEAN)
    again = fit(texts_scene.tuned, evidence_of(texts_scene.planted), reviews(160, 1).texts)
    assert again.threshold == texts_scene.guard.threshold
    assert again.matcher.vectors.equal(texts_scene.guard.matcher.vectors)
    assert texts_scene.tuned.predict(CLEAN) == before
    assert not texts_scene.tuned.model._forward_hooks or len(texts_scene.tuned.model._forward_hooks) == 1


def test_bad_input_is_refused_with_advice(texts_scene: Scene, words_scene: Scene) -> None:
    with pytest.raises(DataError, match="at least 32 clean texts"):
        fit(texts_scene.tuned, Evidence(), tuple(CLEAN[:5]))
    with pytest.raises(AdapterError, match="fitted for text-classification"):
        GuardedPipeline(words_scene.tuned, texts_scene.guard)
    with pytest.raises(DataError, match="takes texts"):
        texts_scene.guarded([1, 2])
