"""The HTML report of `firmground sift`: the most suspicious pairs as pictures with their captions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firmground.reports.details import numbered
from firmground.reports.html import Page, Picture, PicturesSection, Step, TableSection, took

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def sift_page(told: Mapping[str, Any], pictures: Sequence[Picture], words: Sequence[tuple[str, int, int]]) -> Page:
    """The page of one sifting: `told` is its JSON object, `pictures` the most suspicious pairs, in order.

    `words` are those that the captions of the dropped pairs share, each with how many dropped and how many other pairs
    have it.
    """
    share = told["dropped"] / max(1, told["pairs"])
    return Page(
        title=f"{told['pairs_from']}: sifted",
        eyebrow="Sifting of image-text pairs",
        tone="story",
        headline=f"{told['dropped']:,} of {told['pairs']:,} pairs are set aside.",
        lead=(
            f"{told['method']} ranked {told['scored']:,} pairs of {told['pairs_from']} by how oddly they lie in "
            f"{told['encoder']}. The first {share:.1%} are left out of kept.csv. A high rank is a reason to look, and "
            "no proof: rare and honest pairs rank high too."
        ),
        steps=(
            Step(text="Look at the pairs below: do many show one pattern, or say one thing?"),
            Step(
                text="Train or clean on what was kept.",
                command="firmground clean MODEL --data OUT/kept.csv --root FOLDER_OF_THE_SET --out DIR",
            ),
        ),
        facts=(
            ("Pairs", f"{told['pairs']:,}"),
            ("Ranked", f"{told['scored']:,}"),
            ("Set aside", f"{told['dropped']:,}"),
            ("Time", took(told["seconds"])),
        ),
        sections=(
            PicturesSection(
                heading="The most suspicious pairs",
                pictures=tuple(pictures),
                note="From the most suspicious on, as the encoder sees them: squares of its own size.",
                small=True,
            ),
            *(
                ()
                if not words
                else (
                    TableSection(
                        heading="What their captions share",
                        columns=("word", "of the pairs set aside", "of the others"),
                        rows=tuple((word, f"{own:.1%}", f"{rest:.1%}") for word, own, rest in _shares(told, words)),
                        note="Words that are more frequent among the pairs set aside. A target's name stands out here.",
                    ),
                )
            ),
        ),
        details=(
            (f"Settings of {told['method']}", told["settings"]),
            ("Doubts", numbered(told["doubts"])),
        ),
    )


def _shares(told: Mapping[str, Any], words: Sequence[tuple[str, int, int]]) -> list[tuple[str, float, float]]:
    dropped, rest = max(1, told["dropped"]), max(1, told["scored"] - told["dropped"])
    return [(word, own / dropped, other / rest) for word, own, other in words]
