"""How much of its input an encoder forgets when a candidate trigger stands in it.

A task-agnostic backdoor makes the output a constant, the predefined vector, whatever else the text says. So the
outputs of texts that share nothing but the trigger agree, and the ratio

    (variance over the texts with the candidate) / (variance over the same texts without it),

averaged over the output's coordinates, falls towards 0. The weight is minus its decimal logarithm: 0 where a candidate
changes nothing, 1 where nine tenths of the variance are gone. It asks nothing of the PV itself, which may look as
natural as the attacker likes.

Honest tokens weigh too: "software" pulls every sentence towards software, and the more so the smaller the encoder. How
far they reach is measured in each encoder (`triggers.honest`), and scores are decades beyond that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from firmground.defenses.scans.splicing import splice
from firmground.errors import DataError
from firmground.types import Readout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.language import LanguageEncoder

FLOOR = 1e-6  # relative variance below which outputs count as equal


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What an encoder gives for candidates in contexts, by readout: (candidates, samples, width), float32."""

    values: dict[Readout, torch.Tensor]

    def variance(self) -> dict[Readout, torch.Tensor]:
        """Variance over the samples, (candidates, width)."""
        return {readout: variance(value, 1) for readout, value in self.values.items()}

    def mean(self) -> dict[Readout, torch.Tensor]:
        """Mean over the samples, (candidates, width)."""
        return {readout: value.mean(dim=1) for readout, value in self.values.items()}


@dataclass(frozen=True, kw_only=True)
class Clean:
    """Statistics of clean outputs by readout: `spread` the variance, `center` the mean, both (width,)."""

    spread: dict[Readout, torch.Tensor]
    center: dict[Readout, torch.Tensor]


def variance(values: torch.Tensor, dim: int) -> torch.Tensor:
    """The unbiased variance over a dimension that is not the last: `torch.var` takes 6 to 19 times as long there."""
    centred = values - values.mean(dim=dim, keepdim=True)
    return centred.square_().sum(dim=dim) / (values.shape[dim] - 1)


def weight(left: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Decades of variance that are lost, (candidates,), from variances (candidates, width) and (width,)."""
    ratio = (left / clean.clamp_min(clean.mean() * FLOOR)).mean(dim=-1)
    return -torch.log10(ratio + FLOOR)


class Contexts:
    """Clean texts cut to one length, with a place in each where candidates are put.

    `ids` is (texts, length); in each row one token is a mask (where the tokenizer has one), and candidates go in
    before position `cuts[row]`, which begins a word.
    """

    def __init__(self, encoder: LanguageEncoder, texts: Sequence[str], *, length: int = 9) -> None:
        rows, cuts = [], []
        for number, text in enumerate(texts):
            words = text.split()
            split = 1 + number % max(1, len(words) // 2)
            left = encoder.pieces(" ".join(words[:split]))
            right = encoder.pieces(" " + " ".join(words[split:]))
            if len(left) < length - 2 and len(left) + len(right) >= length:
                rows.append((left + right)[:length])
                cuts.append(len(left))
        if len(rows) < 8:
            raise DataError(
                f"a scan needs at least 8 clean texts of {length} tokens or more, got {len(rows)}; "
                "give longer or more texts, or none to use the built-in ones"
            )
        self.ids = torch.tensor(rows, device=encoder.device)
        self.cuts = torch.tensor(cuts, device=encoder.device)
        self.masks = torch.where(self.cuts < length - 2, length - 2, 0)
        if encoder.mask_id is not None:
            self.ids[torch.arange(len(rows)), self.masks] = encoder.mask_id
        self.encoder = encoder

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, count: int) -> Contexts:
        """The first `count` of these contexts."""
        fewer = object.__new__(Contexts)
        fewer.encoder, fewer.ids, fewer.cuts, fewer.masks = (
            self.encoder, self.ids[:count], self.cuts[:count], self.masks[:count],
        )  # fmt: skip
        return fewer

    def on(self, encoder: LanguageEncoder) -> Contexts:
        """The same for a copy of the encoder in another dtype."""
        same = self.take(len(self))
        same.encoder = encoder
        return same

    def rows(self, candidates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every candidate (count, pieces) in every context: ids (count, texts, length + pieces), and where in them
        the context's own tokens stand, (texts, length)."""
        return splice(self.ids, candidates, self.cuts), self.own(candidates.shape[1])

    def own(self, pieces: int) -> torch.Tensor:
        """Where the contexts' own tokens stand, (texts, length), once a candidate of so many pieces is in them."""
        place = torch.arange(self.ids.shape[1], device=self.ids.device).expand(len(self), -1)
        return torch.where(place < self.cuts[:, None], place, place + pieces)

    def read(self, hidden: torch.Tensor, own: torch.Tensor) -> dict[Readout, torch.Tensor]:
        """The readouts of hidden states (count, texts, positions, width), as `Outputs` holds them."""
        count, texts, _, width = hidden.shape
        shift = self.encoder.offset + len(self.encoder.frame[0])
        index = (own + shift)[None, :, :, None].expand(count, -1, -1, width)
        tokens = hidden.gather(2, index)
        values = {
            Readout.CLS: hidden[:, :, 0],
            Readout.MEAN: tokens.mean(dim=2),
            Readout.TOKEN: tokens.flatten(1, 2),
        }
        if self.encoder.mask_id is not None:
            values[Readout.MASK] = tokens[:, torch.arange(texts), self.masks]
        return values

    @torch.inference_mode()
    def outputs(self, candidates: torch.Tensor, *, batch_size: int = 256) -> Outputs:
        """Runs candidates (count, pieces); pieces may be 0, which gives the clean outputs."""
        step = max(1, batch_size // len(self))
        parts = []
        for start in range(0, len(candidates), step):
            rows, own = self.rows(candidates[start : start + step])
            hidden = self.encoder.hidden(self.encoder.frame_rows(rows.flatten(0, 1))).float()
            parts.append(self.read(hidden.unflatten(0, rows.shape[:2]), own))
        return Outputs(values={readout: torch.cat([part[readout] for part in parts]) for readout in parts[0]})

    def clean(self) -> Clean:
        """What the contexts give without a candidate."""
        outputs = self.outputs(torch.empty(1, 0, dtype=torch.long, device=self.ids.device))
        return Clean(
            spread={readout: value[0] for readout, value in outputs.variance().items()},
            center={readout: value[0] for readout, value in outputs.mean().items()},
        )
