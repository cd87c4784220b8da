"""Puts a candidate, or soft vectors, into texts at a place of each text's own."""

import torch


def splice_index(cuts: torch.Tensor, length: int, inserted: int) -> torch.Tensor:
    """Where each position of the spliced rows comes from, (texts, length + inserted).

    `cuts` (texts,) is the position before which `inserted` items go into rows of `length`. The index runs over the
    row's own items, 0 .. length - 1, followed by the inserted ones, length .. length + inserted - 1.

    >>> splice_index(torch.tensor([0, 2]), 3, 2).tolist()
    [[3, 4, 0, 1, 2], [0, 1, 3, 4, 2]]
    """
    place = torch.arange(length + inserted, device=cuts.device).expand(len(cuts), -1)
    cut = cuts[:, None]
    return torch.where(place < cut, place, torch.where(place < cut + inserted, length + place - cut, place - inserted))


def splice(own: torch.Tensor, inserted: torch.Tensor, cuts: torch.Tensor) -> torch.Tensor:
    """Every item of `inserted` (count, pieces, ...) in every row of `own` (texts, length, ...).

    Returns (count, texts, length + pieces, ...); `cuts` is (texts,).
    """
    count, pieces = inserted.shape[:2]
    texts, length = own.shape[:2]
    index = splice_index(cuts, length, pieces)
    both = torch.cat([own.expand(count, *own.shape), inserted[:, None].expand(-1, texts, *inserted.shape[1:])], dim=2)
    return both[:, torch.arange(texts, device=own.device)[:, None], index]
