"""What `firmground scan` runs on a language encoder: the sweep, then phrases grown from its half-suspicious rest."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from firmground.data.sentences import neutral_sentences
from firmground.defenses.scans.phrase_search import PhraseSearch
from firmground.defenses.scans.vocabulary_sweep import VocabularySweep
from firmground.rng import stream
from firmground.types import Verdict, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from firmground.models.language import LanguageEncoder


def scan_language(
    encoder: LanguageEncoder,
    texts: Sequence[str] | None = None,
    *,
    rng: torch.Generator,
    watch: Watch = ignore,
    sweep: VocabularySweep | None = None,
    phrases: PhraseSearch | None = None,
) -> tuple[Verdict, ...]:
    """Judges a language encoder, with or without a prompt on it: one verdict a method, both from one sweep.

    `texts` are clean texts of the kind the encoder will read; by default neutral sentences made here.
    """
    started = time.perf_counter()
    sweep, phrases = sweep or VocabularySweep(), phrases or PhraseSearch()
    texts = texts or neutral_sentences(2 * sweep.contexts, rng=stream(0, "neutral sentences"))
    ranking = sweep.rank(encoder, texts, rng=rng, watch=watch)
    swept = sweep.judge(encoder, ranking, since=started)
    return swept, phrases.grow(encoder, ranking, watch=watch)
