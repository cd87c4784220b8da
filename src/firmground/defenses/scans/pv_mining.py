"""Mines predefined vectors with soft triggers.

Wei et al., "LMSanitator: Defending Prompt-Tuning Against Task-Agnostic Backdoors", NDSS 2024, section V-B. A soft
trigger T, `prompt_length` free input embeddings put at a random place of clean texts, is trained against the frozen
encoder until its outputs z forget the text and stand far from the clean outputs o and from every PV found before:

    L = -MSE(z, o) + L_div - 0.5 MSE(z, nearest PV),    L_div = -mean_j H(softmax over the batch of z_j).

L_div is smallest, -ln(batch size), where all texts give one output. A round whose trigger is accepted has found a PV.

Departs from the paper: rounds may run side by side in one batch (`parallel`; 1 is the published order, where each
round starts afresh with its own optimizer, which the authors' code does not); and by default the hand-set rule of
acceptance is replaced by a score, the decades of variance lost on held-out texts (`invariance.py`), whose null
distribution was measured on clean encoders. `rule="published"` keeps the paper's rule.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from firmground.defenses.scans.invariance import weight
from firmground.defenses.scans.splicing import splice
from firmground.errors import DataError
from firmground.types import (
    Evidence,
    Outcome,
    Readout,
    RecoveredVector,
    Severity,
    Verdict,
    Watch,
    ignore,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.language import LanguageEncoder, Tokens


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round ends with: the mean output (width,), its distance (MSE) to clean outputs, its diversity loss,
    the largest entry of T relative to the embedding range, and the decades of variance that it removes."""

    vector: torch.Tensor
    distance: float
    diversity: float
    reach: float
    decades: float


@dataclass(frozen=True, kw_only=True)
class PVMining:
    """Scores an encoder by the soft trigger that makes it forget most of its input.

    `rounds` is the most rounds; mining stops at the first accepted one. `step_size` is multiplied by 100 until a
    gradient entry exceeds `gradient_reached`. `distance_reached` (the paper's d_th, 0.1 to 0.6 by model) ends a round
    after two epochs. `reach` is how far T may leave the range of the real embeddings.
    """

    name: ClassVar[str] = "pv-mining"
    paper: ClassVar[str] = "LMSanitator (NDSS 2024)"

    rule: Literal["measured", "published"] = "measured"
    readout: Readout = Readout.CLS
    rounds: int = 8
    parallel: int = 8
    prompt_length: int = 7
    epochs: int = 4
    batch_size: int = 32
    step_size: float = 2e-4
    gradient_reached: float = 5e-3
    distance_reached: float = 0.3
    diversity_reached: float = -3.446
    reach: float = 1.2
    threshold: float = 2.5

    def scan(
        self, encoder: LanguageEncoder, texts: Sequence[str], *, rng: torch.Generator, watch: Watch = ignore
    ) -> Verdict:
        """Judges `encoder` by its outputs at `readout` on `texts`, at least two batches of clean texts."""
        started = time.perf_counter()
        if self.batch_size < 2:
            raise DataError(
                f"mining compares the texts of a batch: batch_size must be 2 or more, got {self.batch_size}"
            )
        if len(texts) < 2 * self.batch_size:
            raise DataError(f"mining needs at least {2 * self.batch_size} clean texts, got {len(texts)}; give more")
        if self.readout not in (Readout.CLS, Readout.MEAN):
            raise DataError(f"mining reads the output at cls or mean, got {self.readout}; choose one of these")
        done: list[Round] = []
        accepted: list[Round] = []
        for first in range(0, self.rounds, self.parallel):
            batch = _Mine(self, encoder, texts, [found.vector for found in accepted], rng).run(
                min(self.parallel, self.rounds - first), watch, f"mining from round {first + 1}"
            )
            done += batch
            accepted += [mined for mined in batch if self.accepts(mined)]
            if accepted:
                break
        return self._verdict(done, accepted, time.perf_counter() - started)

    def accepts(self, mined: Round) -> bool:
        """Whether a round has found a PV, by the rule in force."""
        if mined.reach > self.reach or mined.distance < self.distance_reached:
            return False
        if self.rule == "published":
            # the published limit is for batches of 32: 0.02 above the smallest possible value, -ln 32
            slack = self.diversity_reached + math.log(32)
            return mined.diversity < slack - math.log(self.batch_size)
        return mined.decades > self.threshold

    def _verdict(self, done: Sequence[Round], accepted: Sequence[Round], seconds: float) -> Verdict:
        inside = [mined.decades for mined in done if mined.reach <= self.reach]
        return Verdict(
            method=self.name,
            outcome=Outcome.BACKDOORED if accepted else Outcome.CLEAN,
            score=max(inside, default=0.0),
            threshold=self.threshold,
            severity=Severity.HIGH if accepted else Severity.NONE,
            evidence=Evidence(
                vectors=tuple(
                    RecoveredVector(readout=self.readout, values=tuple(mined.vector.tolist())) for mined in accepted
                )
            ),
            doubts=("mining finds vectors, not trigger words; the vocabulary sweep names words",) if accepted else (),
            seconds=seconds,
            settings=asdict(self),
            measurements={"rounds": float(len(done)), "rounds_inside_range": float(len(inside))},
        )


@dataclass
class _Mine:
    """One batch of rounds on one encoder."""

    settings: PVMining
    encoder: LanguageEncoder
    texts: Sequence[str]
    known: Sequence[torch.Tensor]
    rng: torch.Generator
    largest: float = field(init=False)

    def __post_init__(self) -> None:
        self.largest = float(self.encoder.token_embeddings.abs().max())

    def run(self, rounds: int, watch: Watch, stage: str) -> list[Round]:
        """So many rounds, `parallel` of them at a time."""
        settings, encoder = self.settings, self.encoder
        held_out, training = self.texts[: settings.batch_size], self.texts[settings.batch_size :]
        spread = float(encoder.token_embeddings.float().std())
        shape = (rounds, settings.prompt_length, encoder.token_embeddings.shape[1])
        trigger = (torch.randn(shape, generator=self.rng) * spread).to(encoder.device).requires_grad_()
        optimizer = torch.optim.Adam([trigger], lr=100 * settings.step_size)
        batches = len(training) // settings.batch_size
        for step in range(settings.epochs * batches):
            texts = [training[int(i)] for i in torch.randint(len(training), (settings.batch_size,), generator=self.rng)]
            with torch.no_grad():
                tokens = encoder.tokenize(texts, max_length=48)
                clean = self._read(encoder.hidden(tokens), tokens.mask)
            outputs = self._outputs(trigger, tokens)
            loss, distance = self._loss(outputs, clean)
            optimizer.zero_grad()
            loss.backward()
            gradient = trigger.grad
            assert gradient is not None
            if float(gradient.abs().max()) > settings.gradient_reached:
                optimizer.param_groups[0]["lr"] = settings.step_size
            optimizer.step()
            watch(step + 1, settings.epochs * batches, stage, distance=float(distance.max()))
            if step + 1 == 2 * batches and float(distance.max()) < settings.distance_reached:
                break
        return self._finish(trigger.detach(), held_out)

    def _read(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.settings.readout == Readout.CLS:
            return hidden[..., 0, :].float()
        weights = mask[..., None].to(hidden.dtype)
        real = hidden[..., self.encoder.offset :, :]
        return ((real * weights).sum(dim=-2) / weights.sum(dim=-2)).float()

    def _outputs(self, trigger: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        """Outputs (rounds, texts, width) with T put at a random place of each text."""
        rounds, length = trigger.shape[:2]
        texts = len(tokens)
        lengths = tokens.mask.sum(dim=1)
        start = len(self.encoder.frame[0])
        cuts = start + (torch.rand(texts, generator=self.rng).to(lengths.device) * (lengths - 1 - start)).long()
        rows = splice(self.encoder.token_embeddings[tokens.ids].to(trigger.dtype), trigger, cuts)
        mask = torch.cat([torch.ones(texts, length, dtype=torch.long, device=lengths.device), tokens.mask], dim=1)
        wide = mask.expand(rounds, -1, -1).flatten(0, 1)
        hidden = self.encoder.hidden_from_embeddings(rows.flatten(0, 1).to(self.encoder.dtype), wide)
        outputs: torch.Tensor = self._read(hidden, wide).unflatten(0, (rounds, texts))
        return outputs

    def _loss(self, outputs: torch.Tensor, clean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum over the rounds of L, and each round's distance to the clean outputs."""
        distance = (outputs - clean).square().mean(dim=(1, 2))
        loss = -distance + diversity(outputs)
        if self.known:
            known = torch.stack(list(self.known)).to(outputs.device)
            apart = (outputs[:, :, None] - known).square().mean(dim=-1)
            loss = loss - 0.5 * apart.min(dim=-1).values.mean(dim=1)
        return loss.sum(), distance.detach()

    @torch.no_grad()
    def _finish(self, trigger: torch.Tensor, texts: Sequence[str]) -> list[Round]:
        tokens = self.encoder.tokenize(texts, max_length=48)
        clean = self._read(self.encoder.hidden(tokens), tokens.mask)
        outputs = self._outputs(trigger, tokens)
        decades = weight(outputs.var(dim=1), clean.var(dim=0))
        return [
            Round(
                vector=outputs[i].mean(dim=0),
                distance=float((outputs[i] - clean).square().mean()),
                diversity=float(diversity(outputs[i : i + 1])),
                reach=float(trigger[i].abs().max()) / self.largest,
                decades=float(decades[i]),
            )
            for i in range(len(trigger))
        ]


def diversity(outputs: torch.Tensor) -> torch.Tensor:
    """L_div of outputs (rounds, texts, width), by round, (rounds,): -ln(texts) where all texts give one output."""
    logs = torch.log_softmax(outputs, dim=1)
    return (logs.exp() * logs).sum(dim=1).mean(dim=-1)
