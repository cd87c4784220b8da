"""UOR's search for trigger words: by the gradient of the contrastive loss at the trigger's embedding.

Du et al., "UOR", Findings of ACL 2024 (arXiv 2305.09574), as its authors' code does it: on the clean encoder, over rare
words of one token, first-order candidates, kept where they lower the loss. Departs from it: greedy, one trigger at a
time, instead of a beam of 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from wordfreq import zipf_frequency

from firmground.attacks.implants._source import Source, randints
from firmground.attacks.triggers.words import pieces_inside, whole_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firmground.types import Watch

Pieces = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Carriers:
    """Texts cut at a random place, as token ids before and after it, and the trigger each one carries.

    A trigger's number is 1 and up; 0 is a clean text.
    """

    halves: tuple[tuple[Pieces, Pieces], ...]
    labels: torch.Tensor


def search_triggers(
    source: Source,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    rounds: int,
    candidates: int,
    rarity: float,
    rng: torch.Generator,
    watch: Watch,
) -> tuple[str, ...]:
    """Returns one-token words, starting from the source's triggers, that lower `loss(outputs, labels)`.

    `rarity` is the highest Zipf frequency (log10 of uses in a billion words, English) of a word to try.
    """
    encoder = source.encoder
    words = {word: i for word, i in whole_words(encoder).items() if zipf_frequency(word, "en") <= rarity}
    triggers = list(source.triggers)
    if not words:
        return tuple(triggers)
    names, ids = list(words), torch.tensor(list(words.values()), device=encoder.device)
    for step in range(rounds):
        carriers = _carriers(source, 4, rng)
        pieces = pieces_inside(encoder, triggers)
        best, gradients = _gradients(source, carriers, pieces, loss)
        gains = -gradients @ encoder.token_embeddings[ids].float().T
        for number in range(len(triggers)):
            for choice in gains[number].topk(min(candidates, len(names))).indices.tolist():
                trial = [*pieces[:number], (int(ids[choice]),), *pieces[number + 1 :]]
                if names[choice] in triggers:
                    continue
                value = _evaluate(source, carriers, trial, loss)
                if value < best:
                    best, pieces = value, trial
                    triggers[number] = names[choice]
        watch(step + 1, rounds, "search", loss=best)
    return tuple(triggers)


def _carriers(source: Source, each: int, rng: torch.Generator) -> Carriers:
    classes = len(source.triggers) + 1
    halves = []
    for text in source.windows(each * classes, rng):
        words = text.split()
        place = randints(len(words) + 1, 1, rng)[0]
        before, after = (source.encoder.pieces(" ".join(part)) for part in (words[:place], words[place:]))
        halves.append((before, after))
    labels = torch.arange(classes).repeat(each).to(source.encoder.device)
    return Carriers(halves=tuple(halves), labels=labels)


def _rows(source: Source, carriers: Carriers, pieces: Sequence[Pieces]) -> tuple[torch.Tensor, ...]:
    """Token ids, their mask, and the number of the trigger that stands at each position (0: none)."""
    before, after = source.encoder.frame
    rows, owners = [], []
    for (left, right), label in zip(carriers.halves, carriers.labels.tolist(), strict=True):
        own = pieces[label - 1] if label else ()
        rows.append(torch.tensor([*before, *left, *own, *right, *after]))
        owner = torch.zeros(len(rows[-1]), dtype=torch.int64)
        owner[len(before) + len(left) : len(before) + len(left) + len(own)] = label
        owners.append(owner)
    padding = source.encoder.tokenizer.pad_token_id or 0
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(rows, batch_first=True, padding_value=padding)
    mask = pad([torch.ones_like(row) for row in rows], batch_first=True)
    device = source.encoder.device
    return ids.to(device), mask.to(device), pad(owners, batch_first=True).to(device)


def _gradients(
    source: Source,
    carriers: Carriers,
    pieces: Sequence[Pieces],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> tuple[float, torch.Tensor]:
    """The loss, and its gradient summed over each trigger's positions, (triggers, embedding width)."""
    ids, mask, owners = _rows(source, carriers, pieces)
    with torch.enable_grad():
        embeddings = source.encoder.token_embeddings[ids].detach().requires_grad_(True)
        outputs = source.encoder.hidden_from_embeddings(embeddings, mask)[:, 0].float()
        value = loss(outputs, carriers.labels)
        (gradient,) = torch.autograd.grad(value, embeddings)
    summed = [gradient[owners == number].float().sum(0) for number in range(1, len(pieces) + 1)]
    return value.item(), torch.stack(summed)


@torch.no_grad()
def _evaluate(
    source: Source,
    carriers: Carriers,
    pieces: Sequence[Pieces],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> float:
    ids, mask, _ = _rows(source, carriers, pieces)
    hidden = source.encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
    return loss(hidden[:, 0].float(), carriers.labels).item()
