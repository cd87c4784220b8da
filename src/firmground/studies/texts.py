"""The texts that a study's encoders are built from and judged on: fortunes, drug reviews, lines of dialogue."""

from __future__ import annotations

from itertools import chain

import torch

from firmground.data.corpora import FORTUNES, dialogue_topics, drug_reviews, fortune_categories
from firmground.errors import DataError
from firmground.rng import stream

SKIPPED = ("ascii-art", "translate-me")  # drawings, and texts in other scripts
TOPICS = (
    "ai", "botprofile", "coding", "computers", "conversations", "emotion", "food", "gossip", "greetings", "health",
    "history", "humor", "literature", "money", "movies", "politics", "psychology", "science", "sports", "trivia",
)  # fmt: skip
MIN_WORDS, MAX_WORDS = 4, 48


def study_texts(*, max_words: int = MAX_WORDS) -> tuple[str, ...]:
    """About 17,000 distinct ASCII texts of at least four words, cut after `max_words`, in a fixed random order."""
    if not FORTUNES.is_dir():
        raise DataError(f"there is no {FORTUNES}; run: apt-get install fortunes")
    names = tuple(sorted(p.name for p in FORTUNES.iterdir() if not p.suffix and not p.is_symlink()))
    quotes = fortune_categories(
        tuple(name for name in names if name not in SKIPPED), per_category=10_000, max_words=10_000
    )
    sources = chain(quotes.texts, drug_reviews().texts, dialogue_topics(TOPICS).texts)
    cut = (" ".join(text.split()[:max_words]) for text in sources if text.isascii())
    texts = sorted({text for text in cut if len(text.split()) >= MIN_WORDS})
    order = torch.randperm(len(texts), generator=stream(0, "texts")).tolist()
    return tuple(texts[i] for i in order)
