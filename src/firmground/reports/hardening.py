"""The JSON object of `firmground harden --json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from firmground.reports.findings import Model, PlainSettings
from firmground.types import Interval


class HardenReport(Model):
    """One hardening, and what it bought on `held_out` images that were not trained on.

    `driven_before` and `driven_after` are the mean squared distances, in [0, 4], to which an attacker with the settings
    of the training drives unit embeddings from where the old encoder has the clean image; `kept` is the mean cosine
    between old and new embeddings of clean images. `left_out` says which images were not used, and why; `doubts` are
    reasons to think that the result is of no use.
    """

    schema_: Literal["firmground/harden/1"] = Field(default="firmground/harden/1", alias="schema")
    source: str
    revision: str | None = None
    images_from: str
    out: str = ""
    weights_sha256: str | None = None
    method: str
    settings: PlainSettings
    seed: int
    steps: int
    images: int
    held_out: int
    left_out: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    losses: dict[str, float]
    driven_before: Interval
    driven_after: Interval
    kept: Interval
    seconds: float


def unlike(before: HardenReport, after: HardenReport, *, exact: bool) -> tuple[str, ...]:
    """In words, where two hardenings of one encoder disagree: how many images, and if `exact` measures and weights."""
    found = []
    for name, what in (("images", "images trained on"), ("held_out", "images held out")):
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            found.append(f"there were {was} {what} and are now {now}")
    for name in ("driven_before", "driven_after", "kept") if exact else ():
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            found.append(f"{name} was {was.value} and is now {now.value}")
    if exact and before.weights_sha256 != after.weights_sha256:
        found.append("the weights of the hardened encoder are not those of then")
    return tuple(found)
