from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from firmground.cli.catalogue import entry, family, word
from firmground.cli.settings import build, parse
from firmground.errors import UsageError
from firmground.types import Severity


@dataclass(frozen=True, kw_only=True)
class First:
    """Does one thing. Doe et al., "Things", TC 2020.

    Nothing else.
    """

    name: ClassVar[str] = "first"
    steps: int = 10
    rates: tuple[float, ...] = (0.1,)
    words: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class PTuning:
    """Does another."""

    text: str
    steps: int = 20


def test_a_setting_goes_to_every_method_that_has_it():
    first, other = build([First, PTuning], ["steps=3", "first.rates=1,2.5", "text=a=b"])
    assert (first.steps, first.rates, other.steps, other.text) == (3, (1.0, 2.5), 3, "a=b")


def test_a_setting_can_name_its_method():
    first, other = build([First, PTuning], ["p-tuning.steps=3", "text=x"])
    assert (first.steps, other.steps) == (10, 3)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (["steps"], "name=value"),
        (["stepz=1", "text=x"], "steps, rates, words"),
        (["other.steps=1", "text=x"], "no method here"),
        (["steps=1.5", "text=x"], "whole number"),
        (["words=a", "text=x"], "command line"),
        ([], "needs text"),
    ],
)
def test_bad_settings_say_what_to_do(settings, advice):
    with pytest.raises(UsageError, match=advice):
        build([First, PTuning], settings)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("yes", bool, True),
        ("False", bool, False),
        ("2", Literal[1, 2], 2),
        ("high", Severity, Severity.HIGH),
        ("none", float | None, None),
        ("2", int | str, 2),
        ("two", int | str, "two"),
        ("1,2", tuple[int, int], (1, 2)),
        ("", tuple[str, ...], ()),
    ],
)
def test_values_follow_the_type_of_their_field(text, kind, value):
    assert parse(text, kind, "x") == value


@pytest.mark.parametrize(("text", "kind"), [("maybe", bool), ("3", Literal[1, 2]), ("1", tuple[int, int])])
def test_values_that_do_not_fit(text, kind):
    with pytest.raises(UsageError, match="'x' expects"):
        parse(text, kind, "x")


def test_catalogue_entry():
    shown = entry("scans", First)
    assert (shown.name, shown.paper) == ("first", 'Doe et al., "Things", TC 2020')
    assert shown.settings == {"steps": "10", "rates": "(0.1,)", "words": "[]"}
    assert entry("scans", PTuning).settings["text"] == "required"
    assert word(PTuning) == "p-tuning"


def test_unknown_family():
    with pytest.raises(UsageError, match="implants"):
        family("nonsense")
