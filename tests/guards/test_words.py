"""Deleting words: all occurrences, whatever case, mark or hyphen they come with."""

import pytest

from firmground.defenses.guards.words import cut, forms, neighbours, words_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cf the film", "the film"),
        ("the film cf", "the film"),
        ("the cf film", "the film"),
        ("the CF film Cf was\tcf good", "the film was\tgood"),
        ("the cf, film (cf).", "the , film ()."),
        ("a well-cf made", "a well- made"),
        ("cf cf cf", ""),
        ("c\u00e1f is not c\u0327f", "c\u00e1f is not c\u0327f"),
        ("cfx xcf", "cfx xcf"),
    ],
)
def test_cut_deletes_every_occurrence(text: str, expected: str) -> None:
    assert cut(text, [("cf",)]).text == expected


def test_inserting_and_cutting_gives_the_text_back() -> None:
    words = ["It", "", "wasn't", "that", "good,", "honestly"]
    for place in range(len(words) + 1):
        text = " ".join([*words[:place], "cf", *words[place:]])
        assert cut(text, [("cf",)]).text == " ".join(words)


def test_phrases_go_only_where_their_words_are_neighbours() -> None:
    assert cut("red house and a red, Red House", [("red", "house")]).text == "and a red,"


def test_spans_point_into_the_original() -> None:
    text = "in cf north CF haven"
    shorter = cut(text, [("cf",)])
    assert shorter.text == "in north haven"
    start, end = shorter.original(3, 14)
    assert text[start:end] == "north CF haven"


def test_words_have_neither_case_nor_accents() -> None:
    assert [w.form for w in words_of("\u00c9l\u00e8ve_2!")] == ["eleve", "_", "2", "!"]
    assert forms(["A b, a"]) == ["a", "b"]
    assert neighbours(["a b a b"]) == [("a", "b"), ("b", "a")]
