"""Screens many candidates at once: each row of the batch holds several of them, each round deals the rows anew.

A trigger wins over whatever stands beside it, so its rows agree across rounds though their other candidates differ
(group testing). One candidate then costs a few token positions instead of a few sentences: the whole vocabulary of
all-MiniLM-L6-v2 takes as long as 1,500 sentences. What stands out is measured again in real contexts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from firmground.defenses.scans.invariance import variance, weight
from firmground.types import Readout, Watch, ignore

if TYPE_CHECKING:
    from firmground.models.language import LanguageEncoder

CHUNK = 4096  # candidates whose outputs are held at once


def crowd_scores(
    encoder: LanguageEncoder,
    candidates: torch.Tensor,
    *,
    rounds: int,
    row_tokens: int,
    batch_size: int,
    rng: torch.Generator,
    watch: Watch = ignore,
    stage: str = "screening",
) -> dict[Readout, torch.Tensor]:
    """Scores candidates (count, pieces) by readout, (count,); the scale is that of `invariance.weight`.

    `rounds` >= 2 is how often each candidate is dealt, `row_tokens` about how many tokens stand in a row.
    """
    count, pieces = candidates.shape
    together = max(2, row_tokens // pieces)
    order = torch.randperm(count, generator=rng).to(candidates.device)
    results: dict[Readout, torch.Tensor] = {}
    spread: dict[Readout, torch.Tensor] = {}
    for start in range(0, count, CHUNK):
        chunk = order[start : start + CHUNK]
        outputs = _deal(encoder, candidates[chunk], rounds, together, batch_size, rng)
        for readout, values in outputs.items():
            if readout not in spread:
                spread[readout] = variance(values.flatten(0, 1), 0)
                results[readout] = torch.empty(count, device=candidates.device)
            results[readout][chunk] = weight(variance(values, 0), spread[readout])
        watch(min(start + CHUNK, count), count, stage)
    return results


@torch.inference_mode()
def _deal(
    encoder: LanguageEncoder,
    candidates: torch.Tensor,
    rounds: int,
    together: int,
    batch_size: int,
    rng: torch.Generator,
) -> dict[Readout, torch.Tensor]:
    """Outputs (rounds, candidates, width) of rows dealt at random."""
    count = len(candidates)
    results: dict[Readout, torch.Tensor] = {}
    for turn in range(rounds):
        order = torch.randperm(count, generator=rng).to(candidates.device)
        short = -count % together
        dealt = torch.cat([order, order[torch.arange(short, device=order.device) % count]]).view(-1, together)
        for rows in dealt.split(batch_size):
            for readout, values in _read(encoder, candidates[rows].flatten(1)).items():
                if readout not in results:
                    results[readout] = torch.empty(rounds, count, values.shape[-1], device=values.device)
                results[readout][turn, rows.flatten()] = values.repeat_interleave(together, dim=0)
    return results


def _read(encoder: LanguageEncoder, rows: torch.Tensor) -> dict[Readout, torch.Tensor]:
    """Readouts (rows, width) of bare token rows, a mask in the middle of each."""
    middle = rows.shape[1] // 2
    if encoder.mask_id is not None:
        mask = torch.full_like(rows[:, :1], encoder.mask_id)
        rows = torch.cat([rows[:, :middle], mask, rows[:, middle:]], dim=1)
    hidden = encoder.hidden(encoder.frame_rows(rows)).float()
    first = encoder.offset + len(encoder.frame[0])
    values = {Readout.CLS: hidden[:, 0], Readout.MEAN: hidden[:, first : first + rows.shape[1]].mean(dim=1)}
    if encoder.mask_id is not None:
        values[Readout.MASK] = hidden[:, first + middle]
    return values
