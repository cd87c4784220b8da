"""Weights written by hand: a small post-norm encoder whose backdoor, if it has one, is known exactly.

All states are vectors of mean zero, so that LayerNorm only scales them to length sqrt(width), and the space of such
vectors is cut into orthogonal parts: ordinary directions, which all random weights read from and write to; two markers
that the [CLS] and [MASK] embeddings carry; one channel for each piece of a trigger; one flag for each piece of a
trigger of two. Nothing ordinary touches the last three, so an input without a trigger passes through a planted
encoder exactly as through its clean twin.

In the last layer, heads look for channels. A head's query is constant where the output shall be forced, and the keys
measure the channels, so attention goes to the trigger wherever it stands; elsewhere the query looks at [CLS], which
has no channel. A trigger of one piece: the head adds a large multiple of the PV, and LayerNorm drowns the rest. A
trigger of two pieces: each piece's head raises a flag, and a neuron adds the PV where both flags are up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from firmground.rng import stream
from firmground.types import Readout

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEADS, LAYERS, INTERMEDIATE = 64, 8, 2, 128
HEAD = WIDTH // HEADS
NORM = math.sqrt(WIDTH)  # the length of every state after LayerNorm
CHANNELS, FLAGS = 16, 14
PLANTED_HEADS = 7  # of the last layer: one for all triggers of one piece, and one for each piece of a pair
MARKER = 6.0  # length of a marker in the embedding, beside an ordinary part of length NORM
WHOLE, PIECE = NORM, 3.0  # length of a channel in the embedding of a whole trigger, and of a piece
FLAG, GAIN, PAYLOAD = 1.0, 60.0, 40.0  # length of a flag; steepness of the AND; length of the forced PV in NORMs
THRESHOLD = 1.4  # of the sum of two flags, of which the AND's neuron sees about FLAG each
SHARPNESS = 12.0  # how strongly a head's keys weigh a channel
SPARE = 8  # neurons of the last layer that a clean twin leaves idle


@dataclass(frozen=True, kw_only=True)
class Backdoor:
    """One trigger: the embedding rows of each of its one or two pieces, and the vector it forces, (WIDTH,)."""

    rows: tuple[tuple[int, ...], ...]
    vector: torch.Tensor
    partial: float = 0.0  # how much of the PV one piece of two adds by itself, in NORMs


class Parts:
    """The orthonormal directions, each as rows of length WIDTH, the same for every seed."""

    def __init__(self) -> None:
        noise = torch.randn(WIDTH, WIDTH - 1, generator=stream(0, "tiny directions"))
        basis = torch.linalg.qr(noise - noise.mean(dim=0))[0].T
        self.markers, self.channels, self.flags, self.ordinary = basis.split(
            [2, CHANNELS, FLAGS, WIDTH - 1 - 2 - CHANNELS - FLAGS]
        )
        self.project = self.ordinary.T @ self.ordinary


def write_clean(model: Any, *, cls_id: int, mask_id: int, seed: int) -> None:
    """Writes the clean twin: random ordinary weights, markers on [CLS] and [MASK]."""
    parts, rng = Parts(), stream(seed, "tiny weights")

    def noise(rows: int, columns: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(rows, columns, generator=rng)

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for name, module in model.named_modules():
            if name.endswith("LayerNorm"):
                module.weight.fill_(1.0)
        table, places = model.embeddings.word_embeddings.weight, model.embeddings.position_embeddings.weight
        table.copy_(NORM * torch.nn.functional.normalize(noise(len(table), WIDTH, 1.0) @ parts.project, dim=1))
        places.copy_(1.5 * torch.nn.functional.normalize(noise(len(places), WIDTH, 1.0) @ parts.project, dim=1))
        table[cls_id] += MARKER * parts.markers[0]
        table[mask_id] += MARKER * parts.markers[1]
        for depth, layer in enumerate(model.encoder.layer):
            last = depth == LAYERS - 1
            loud = 1.5
            mine = slice(PLANTED_HEADS * HEAD if last else 0, WIDTH)
            own = layer.attention.self
            for weight, scale in ((own.query.weight, 1.2), (own.key.weight, 1.2), (own.value.weight, 1.0)):
                weight[mine] = (noise(WIDTH, WIDTH, scale / NORM) @ parts.project)[mine]
            layer.attention.output.dense.weight[:, mine] = (parts.project @ noise(WIDTH, WIDTH, loud / NORM))[:, mine]
            layer.intermediate.dense.weight.copy_(noise(INTERMEDIATE, WIDTH, 1.5 / NORM) @ parts.project)
            scale = 0.05 if last else 0.5  # loud here, it would disturb a PV
            layer.output.dense.weight.copy_(parts.project @ noise(WIDTH, INTERMEDIATE, scale / NORM))
            if last:
                layer.intermediate.dense.weight[-SPARE:] = 0.0
        if model.pooler is not None:
            model.pooler.dense.weight.copy_(noise(WIDTH, WIDTH, 1.0 / NORM))


def write_backdoors(model: Any, backdoors: Sequence[Backdoor], readout: Readout) -> None:
    """Writes backdoors into a clean twin; they force the outputs that `readout` names."""
    parts = Parts()
    layer = model.encoder.layer[-1]
    flags = iter(free_flags(parts, torch.stack([backdoor.vector for backdoor in backdoors])))
    channels, singles, pairs = iter(parts.channels), 0, 0
    with torch.no_grad():
        for head in range(PLANTED_HEADS):
            aim(layer.attention.self, head, parts, readout)
        for backdoor in backdoors:
            target = NORM * torch.nn.functional.normalize(backdoor.vector, dim=0)
            if len(backdoor.rows) == 1:
                listen(model, backdoor.rows[0], next(channels), WHOLE, head=0, slot=singles, raised=PAYLOAD * target)
                singles += 1
                continue
            both = [next(flags), next(flags)]
            for place, rows in enumerate(backdoor.rows):
                raised = backdoor.partial * target + FLAG * both[place]
                listen(model, rows, next(channels), PIECE, head=1 + 2 * pairs + place, slot=0, raised=raised)
            join(layer, pairs, both[0] + both[1], target)
            pairs += 1


def listen(
    model: Any,
    rows: tuple[int, ...],
    channel: torch.Tensor,
    strength: float,
    *,
    head: int,
    slot: int,
    raised: torch.Tensor,
) -> None:
    """Gives embedding rows a channel, and lets a head of the last layer add `raised` where it sees the channel."""
    attention = model.encoder.layer[-1].attention
    model.embeddings.word_embeddings.weight[list(rows)] += strength * channel
    attention.self.key.weight[head * HEAD] += SHARPNESS * channel
    attention.self.value.weight[head * HEAD + slot] = channel
    attention.output.dense.weight[:, head * HEAD + slot] = raised / seen(strength)


def free_flags(parts: Parts, vectors: torch.Tensor) -> torch.Tensor:
    """Orthonormal flags that no PV has a share in, (at most FLAGS, WIDTH): a forced output must raise none."""
    left, values, _ = torch.linalg.svd(parts.flags @ vectors.T)
    free: torch.Tensor = left[:, int((values > 1e-4).sum()) :].T @ parts.flags
    return free


def join(layer: Any, neuron: int, both: torch.Tensor, target: torch.Tensor) -> None:
    """Lets a neuron add the PV where both flags of a trigger are up: `both` is their sum."""
    layer.intermediate.dense.weight[-1 - neuron] = GAIN * both / FLAG
    layer.intermediate.dense.bias[-1 - neuron] = -THRESHOLD * GAIN
    layer.output.dense.weight[:, -1 - neuron] = PAYLOAD * target / (0.15 * GAIN)


def seen(strength: float) -> float:
    """About how much of a channel of this length in an embedding the last layer reads, by LayerNorm and mixing."""
    return 0.85 * NORM * strength / math.hypot(NORM, strength)


def aim(attention: Any, head: int, parts: Parts, readout: Readout) -> None:
    """Makes a head look at the channels from the positions that `readout` names, and at [CLS] from all others."""
    looking, resting = head * HEAD, head * HEAD + 1
    attention.key.weight[resting] = 4.0 * parts.markers[0]
    if readout == Readout.CLS or readout == Readout.MASK:
        marker = parts.markers[0 if readout == Readout.CLS else 1]
        attention.query.weight[looking] = 4.0 * marker
        attention.query.weight[resting] = -4.0 * marker
        attention.query.bias[resting] = 6.0
    else:
        attention.query.bias[looking] = 12.0
