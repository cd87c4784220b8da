"""What `firmground sift` leaves behind: the ranking, a manifest of what is kept, and how both came about."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.cli.pair_table import pair_table
from firmground.data.counting import counted_lines
from firmground.data.encoding import png
from firmground.reports.html import Picture
from firmground.reports.writing import write_atomically

if TYPE_CHECKING:
    from firmground.data.pairs import Pairs
    from firmground.types import Suspicion

SCHEMA = "firmground/sift/1"
SHOWN, PICTURED, WORDS = 10, 48, 12
LONGEST = 80  # characters of a caption under a picture


def summary(found: Suspicion, pairs: Pairs, *, source: str, encoder: str, drop: float, seed: int) -> dict[str, Any]:
    """The JSON object that `--json` prints and sift.json holds."""
    ranked, scores, home = found.ranked(), dict(zip(found.rows, found.scores, strict=True)), _home(source)
    left = list(counted_lines(pairs.counted, "row"))
    return {
        "schema": SCHEMA,
        "pairs_from": source,
        "encoder": encoder,
        "method": found.method,
        "settings": found.settings,
        "seed": seed,
        "pairs": len(pairs),
        "scored": len(ranked),
        "dropped": dropped(found, pairs, drop),
        "doubts": [*found.doubts, *left],
        "seconds": found.seconds,
        "most_suspicious": [_entry(row, scores[row], pairs, home) for row in ranked[:SHOWN]],
    }


def dropped(found: Suspicion, pairs: Pairs, share: float) -> int:
    """How many ranked pairs the share stands for, rounded."""
    return min(len(found.rows), round(share * len(pairs)))


def write(out: Path, found: Suspicion, pairs: Pairs, told: dict[str, Any], *, source: str) -> None:
    """Writes ranking.jsonl, kept.csv and, last, sift.json, each whole or not at all.

    kept.csv is a table of pairs in their old order, its images relative to the folder of the set; pairs that could not
    be read are not in it.
    """
    ranked, scores, home = found.ranked(), dict(zip(found.rows, found.scores, strict=True)), _home(source)
    worst = set(ranked[: told["dropped"]])
    out.mkdir(parents=True, exist_ok=True)
    lines = (
        json.dumps({"rank": i + 1, **_entry(row, scores[row], pairs, home), "kept": row not in worst})
        for i, row in enumerate(ranked)
    )
    write_atomically(out / "ranking.jsonl", "".join(f"{line}\n" for line in lines))
    kept = ((row, _place(pairs.names[row], home), pairs.captions[row]) for row in found.rows if row not in worst)
    write_atomically(out / "kept.csv", pair_table(kept, pairs))
    write_atomically(out / "sift.json", json.dumps(told, indent=2, allow_nan=False) + "\n")


def pictures(found: Suspicion, pairs: Pairs) -> list[Picture]:
    """The most suspicious pairs as PNG pictures with their captions."""
    scores = dict(zip(found.rows, found.scores, strict=True))
    return [
        Picture(png=png(pairs.image(row)), caption=f"{pairs.captions[row][:LONGEST]} ({scores[row]:.2f}, row {row})")
        for row in found.ranked()[:PICTURED]
    ]


def telling_words(found: Suspicion, pairs: Pairs, count: int) -> list[tuple[str, int, int]]:
    """Words of captions that are more frequent in the first `count` ranked pairs than in the others.

    Each with how many of the first and how many of the others have it; the most telling first.
    """
    worst = set(found.ranked()[:count])
    own: Counter[str] = Counter()
    rest: Counter[str] = Counter()
    for row in found.rows:
        (own if row in worst else rest).update(set(re.findall(r"\w+", pairs.captions[row].lower())))
    others = max(1, len(found.rows) - len(worst))
    excess = {word: hits / max(1, len(worst)) - rest[word] / others for word, hits in own.items()}
    telling = sorted((word for word in own if own[word] > 1 and excess[word] > 0.02), key=lambda w: (-excess[w], w))
    return [(word, own[word], rest[word]) for word in telling[:WORDS]]


def _entry(row: int, score: float, pairs: Pairs, home: Path) -> dict[str, Any]:
    return {"row": row, "score": score, "image": _place(pairs.names[row], home), "caption": pairs.captions[row]}


def _home(source: str) -> Path:
    """The set's folder."""
    place = Path(source).resolve()
    return place if place.is_dir() else place.parent


def _place(name: str, home: Path) -> str:
    """Where an image lies in the set's folder; a member of a shard keeps its name."""
    path = Path(name).resolve()
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else name
