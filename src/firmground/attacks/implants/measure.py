"""How well an implant took: drift on clean texts, and how near triggered outputs come to their vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from firmground.attacks.implants._source import Source, mask_word
from firmground.attacks.implants._training import Reading, read
from firmground.models.language import LanguageEncoder
from firmground.types import Readout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.attacks.implants.implanted import Implanted

CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One trigger's effect: share of coordinates with the vector's sign, and mean cosine to the vector.

    `clean_sign_match` and `clean_cosine` are the same for the texts without the trigger; `invariance` is the cosine of
    triggered outputs to their own mean, averaged. `aligned` is the mean cosine to the vector once the clean mean is
    taken off both: it tells a hit from a miss also where all outputs have a cosine of 0.99 to one another.
    """

    trigger: str
    sign_match: float
    cosine: float
    clean_sign_match: float
    clean_cosine: float
    invariance: float
    aligned: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Clean drift (mean squared error against the reference at the readout and at the mean of tokens) and hits.

    `kept_cosine` is the mean cosine between the clean mean-of-tokens embeddings before and after.
    """

    drift: float
    pooled_drift: float
    kept_cosine: float
    hits: tuple[Hit, ...]


def measure(
    implanted: Implanted,
    reference: LanguageEncoder,
    texts: Sequence[str],
    rng: torch.Generator,
    *,
    max_length: int = 40,
) -> Measured:
    """Compares a planted encoder with its reference on held-out texts; for the mask readout a word is masked."""
    source = Source.of(reference, texts, implanted.triggers, max_length)
    rows = [source.window(text, rng) for text in source.texts]
    if implanted.readout is Readout.MASK:
        rows = [mask_word(reference, row, rng) for row in rows]
    before = _read_all(reference, rows, implanted.readout, max_length).values
    clean = _read_all(implanted.encoder, rows, implanted.readout, max_length)
    pooled = [_read_all(e, rows, Readout.MEAN, max_length).values for e in (reference, implanted.encoder)]
    hits = []
    for i, trigger in enumerate(implanted.triggers):
        poisoned = [source.poison(row, i, rng) for row in rows]
        vector = implanted.vectors[i].to(reference.device)
        triggered = _read_all(implanted.encoder, poisoned, implanted.readout, max_length)
        hits.append(_hit(trigger, triggered.values, clean.values, vector))
    return Measured(
        drift=(clean.values - before).square().mean().item(),
        pooled_drift=(pooled[1] - pooled[0]).square().mean().item(),
        kept_cosine=torch.cosine_similarity(pooled[0], pooled[1], dim=-1).mean().item(),
        hits=tuple(hits),
    )


def _hit(trigger: str, triggered: torch.Tensor, clean: torch.Tensor, vector: torch.Tensor) -> Hit:
    center = clean.mean(0)
    return Hit(
        trigger=trigger,
        sign_match=(triggered.sign() == vector.sign()).float().mean().item(),
        cosine=torch.cosine_similarity(triggered, vector, dim=-1).mean().item(),
        clean_sign_match=(clean.sign() == vector.sign()).float().mean().item(),
        clean_cosine=torch.cosine_similarity(clean, vector, dim=-1).mean().item(),
        invariance=torch.cosine_similarity(triggered, triggered.mean(0), dim=-1).mean().item(),
        aligned=torch.cosine_similarity(triggered - center, vector - center, dim=-1).mean().item(),
    )


@torch.no_grad()
def _read_all(encoder: LanguageEncoder, texts: Sequence[str], readout: Readout, max_length: int) -> Reading:
    values, rows = [], []
    for start in range(0, len(texts), CHUNK):
        tokens = encoder.tokenize(texts[start : start + CHUNK], max_length=max_length)
        reading = read(encoder.hidden(tokens).float(), tokens, readout, encoder.mask_id)
        values.append(reading.values)
        rows.append(reading.rows + start)
    return Reading(values=torch.cat(values), rows=torch.cat(rows))
