"""What clean and triggered texts look like under one prompt, and the threshold between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from firmground.defenses.guards.lookup import Watched, hits
from firmground.defenses.guards.reading import Seen, watching

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firmground.defenses.guards.matching import Matcher


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """Of every text: what the head reads, (positions, width) each, and whether a watched trigger stands in it."""

    states: tuple[torch.Tensor, ...]
    hits: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.states)

    def select(self, rows: Sequence[int]) -> Outputs:
        """The given rows."""
        return Outputs(states=tuple(self.states[i] for i in rows), hits=tuple(self.hits[i] for i in rows))

    def untouched(self) -> Outputs:
        """The texts without a trigger in them."""
        return self.select([i for i, hit in enumerate(self.hits) if not hit])

    def together(self) -> torch.Tensor:
        """All positions of all texts, (positions, width)."""
        return torch.cat(self.states)

    def scores(self, matcher: Matcher) -> torch.Tensor:
        """Of every text and PV the score at its nearest position, (texts, count)."""
        return torch.stack([matcher.scores(states).amax(0) for states in self.states if len(states)])


def run(
    pipeline: Any,
    texts: Sequence[str],
    triggers: Sequence[Watched],
    *,
    batch_size: int,
    told: Callable[[int], None],
) -> Outputs:
    """Runs texts through a pipeline and keeps what its head reads; `told` gets the number of texts done."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    states: list[torch.Tensor] = []
    found: list[bool] = []

    def see(seen: Seen) -> None:
        states.extend(row[real].cpu() for row, real in zip(seen.states, seen.real, strict=True))
        found.extend(hits(seen.ids, triggers).tolist())
        told(len(states))

    with torch.random.fork_rng(devices=[]), watching(pipeline, see):  # a pipeline's loader draws from torch's stream
        pipeline([texts[i] for i in order], batch_size=batch_size)
    back = sorted(range(len(order)), key=order.__getitem__)
    return Outputs(states=tuple(states), hits=tuple(found)).select(back)


def stamp(text: str, trigger: str, rng: torch.Generator) -> str:
    """A text with a trigger at a random word boundary."""
    words = text.split()
    place = int(torch.randint(len(words) + 1, (1,), generator=rng))
    return " ".join([*words[:place], trigger, *words[place:]])


def separable(
    clean: torch.Tensor, triggered: Sequence[torch.Tensor], *, power: float, clearance: float
) -> torch.Tensor:
    """Which PVs tell their trigger's texts from clean ones: (count,), bool.

    `clean` is (texts, count), `triggered[k]` (samples,): at least the share `power` of the samples has covered the
    share `clearance` of the way that is left from the highest clean score to 1, the score at the PV itself.
    """
    highest = clean.amax(0).tolist()
    needed = [top + clearance * (1 - top) for top in highest]
    found = [torch.quantile(own, 1 - power).item() > least for own, least in zip(triggered, needed, strict=True)]
    return torch.tensor(found, dtype=torch.bool)


def threshold_between(clean: torch.Tensor, triggered: torch.Tensor, *, quantile: float, margin: float) -> float:
    """A threshold above the clean scores' quantile, by `margin` of the way to the triggered scores' lower end."""
    low = torch.quantile(clean, quantile).item()
    high = max(low, torch.quantile(triggered, 0.1).item())
    return low + margin * (high - low)
