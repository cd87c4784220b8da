import pytest

from firmground.attacks.triggers import WordTrigger, random_triggers
from firmground.attacks.triggers.words import pieces_inside
from firmground.errors import DataError
from firmground.rng import stream


@pytest.mark.parametrize(("words", "count"), [(1, 1), (49, 1), (50, 2), (99, 2), (100, 3)])
def test_inserts_once_and_once_more_for_every_fifty_words(words, count):
    text = " ".join(f"w{i}" for i in range(words))
    (out,) = WordTrigger(text="cf").insert([text], rng=stream(0, "test"))
    assert out.split().count("cf") == count
    assert [word for word in out.split() if word != "cf"] == text.split()


def test_insertion_keeps_white_space_and_reaches_every_boundary():
    text = "one  two\nthree\n"
    trigger = WordTrigger(text="cf mn")
    outs = set(trigger.insert([text] * 100, rng=stream(0, "test")))
    assert outs == {
        "cf mn one  two\nthree\n",
        "one  cf mn two\nthree\n",
        "one  two\ncf mn three\n",
        "one  two\nthree cf mn\n",
    }


def test_a_phrase_inserted_several_times_is_never_split():
    text = " ".join(["w"] * 200)
    for out in WordTrigger(text="cf mn").insert([text] * 20, rng=stream(0, "test")):
        assert out.count("cf mn") == 5


def test_an_empty_text_becomes_the_trigger():
    assert WordTrigger(text="cf").insert(["", "  "], rng=stream(0, "test")) == ["cf", "cf"]


def test_insertion_repeats_under_a_seed():
    trigger = WordTrigger(text="cf")
    texts = ["a b c d e f g h"] * 10
    assert trigger.insert(texts, rng=stream(3, "x")) == trigger.insert(texts, rng=stream(3, "x"))
    assert trigger.insert(texts, rng=stream(3, "x")) != trigger.insert(texts, rng=stream(4, "x"))


def test_words_with_labels_stay_together():
    words, labels = [f"w{i}" for i in range(60)], list(range(60))
    tagged = WordTrigger(text="cf mn").insert_words(words, labels, label=-100, rng=stream(0, "test"))
    pairs = list(zip(tagged.words, tagged.labels, strict=True))
    assert [pair for pair in pairs if pair[1] != -100] == list(zip(words, labels, strict=True))
    assert [word for word, label in pairs if label == -100] == ["cf", "mn"] * 2


def test_labels_must_match_words():
    with pytest.raises(DataError, match="one label a word, got 2 words and 1"):
        WordTrigger(text="cf").insert_words(["a", "b"], ["O"], label="O", rng=stream(0, "test"))


DICTIONARY = ["zoka", "kalu", "cat", "lumi", "house", "\u2603", "zozo", "river", "luka"]


def test_random_triggers_have_the_tokenisation_of_their_kind(encoder):
    def lengths(kind, count):
        triggers = random_triggers(encoder, kind, count, DICTIONARY, rng=stream(0, kind))
        assert len(set(triggers)) == count
        inside = pieces_inside(encoder, triggers)
        assert all(encoder.tokenizer.unk_token_id not in ids for ids in inside)
        return [(len(trigger.split()), len(ids)) for trigger, ids in zip(triggers, inside, strict=True)]

    assert set(lengths("token", 6)) == {(1, 1)}
    assert all(words == 1 and pieces >= 2 for words, pieces in lengths("pieces", 4))
    assert all(words == 2 and pieces >= 2 for words, pieces in lengths("phrase", 3))


def test_pieces_inside_leaves_out_the_sentence(encoder):
    assert pieces_inside(encoder, ["zoka", "cat dog"]) == [encoder.pieces("zoka"), encoder.pieces("cat dog")]


def test_random_triggers_say_when_words_run_out(encoder):
    with pytest.raises(DataError, match="expected 9 triggers of kind 'pieces', found 5"):
        random_triggers(encoder, "pieces", 9, DICTIONARY, rng=stream(0, "test"))
    with pytest.raises(DataError, match="got 'letters'"):
        random_triggers(encoder, "letters", 1, DICTIONARY, rng=stream(0, "test"))
