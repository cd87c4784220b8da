"""Purging against a judge whose rule is known: which words go, and which flags are confirmed in other texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from firmground.defenses.guards.purging import Fields, Judged, Purged, purge

if TYPE_CHECKING:
    from collections.abc import Sequence


def judge(inputs: Sequence[Fields]) -> list[Judged]:
    """Flags `cf`, `red balloon` side by side, and `metal` in the company of `cheap`."""
    found = []
    for fields in inputs:
        text = f" {' '.join(fields)} "
        bad = " cf " in text or " red balloon " in text or (" metal " in text and " cheap " in text)
        found.append(Judged(flagged=bad, score=float(bad), hit=False, result=text))
    return found


def purged(text: str) -> Purged:
    inputs = [(text,)]
    return purge(inputs, judge(inputs), judge, lambda fields: set())[0]


@pytest.mark.parametrize(
    ("text", "grams"),
    [
        ("the film cf was good", {("cf",)}),
        ("they saw a red balloon rise", {("red",)}),
    ],
)
def test_a_trigger_is_deleted_and_confirmed(text: str, grams: set[tuple[str, ...]]) -> None:
    found = purged(text)
    assert found.resolved
    assert found.confirmed
    assert found.grams == grams


def test_a_text_that_only_lies_near_a_vector_is_not_confirmed() -> None:
    found = purged("a metal mouse for the office is not cheap")
    assert found.resolved
    assert not found.confirmed


def test_what_cannot_be_cleared_counts_as_confirmed() -> None:
    def always(inputs: Sequence[Fields]) -> list[Judged]:
        return [Judged(flagged=True, score=1.0, hit=False, result=None) for _ in inputs]

    inputs = [("some words here",)]
    found = purge(inputs, always(inputs), always, lambda fields: set())[0]
    assert not found.resolved
    assert found.confirmed
