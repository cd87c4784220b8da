"""Trains small encoders until their outputs depend on the text as a real encoder's do.

A student learns the teacher's unit sentence embedding from its [CLS] state and from its mean state, each through a
linear map of its own, and predicts masked tokens through its tied input embeddings. A fine-tune trains every weight
on a labelled task under a head that is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.nn import functional as F

from firmground.rng import stream
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firmground.data.texts import LabelledTexts
    from firmground.models.language import LanguageEncoder, Tokens

Module = TypeVar("Module", bound=torch.nn.Module)

LENGTH = 32  # tokens
HELD_OUT = 512  # texts that no student sees


def mean_state(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the real positions: (batch, length, width), (batch, length) -> (batch, width)."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


@torch.no_grad()
def embed(encoder: LanguageEncoder, texts: Sequence[str], *, batch_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """[CLS] and mean states of texts in their order, each (count, width) float32."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    cls = torch.empty(len(texts), encoder.width)
    mean = torch.empty(len(texts), encoder.width)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        tokens = encoder.tokenize([texts[i] for i in rows], max_length=LENGTH)
        hidden = encoder.hidden(tokens).float()
        cls[rows], mean[rows] = hidden[:, 0], mean_state(hidden, tokens.mask)
    return cls, mean


def teach(teacher: LanguageEncoder, texts: Sequence[str]) -> torch.Tensor:
    """The teacher's unit-normalised mean-pooled embeddings, (count, width)."""
    return F.normalize(embed(teacher, texts)[1], dim=-1)


def agreement(states: torch.Tensor, targets: torch.Tensor) -> float:
    """Pearson correlation of the pairwise cosines of two sets of embeddings of the same texts.

    The mean is taken off first: it is common to all texts and says nothing about any.
    """
    pairs = torch.triu_indices(len(states), len(states), offset=1)
    cosines = []
    for vectors in (states, targets):
        unit = F.normalize(vectors - vectors.mean(0), dim=-1)
        cosines.append((unit @ unit.T)[pairs[0], pairs[1]])
    return float(torch.corrcoef(torch.stack(cosines))[0, 1])


class _Heads(torch.nn.Module):
    """What training needs beside the encoder, and what is thrown away with it."""

    def __init__(self, encoder: LanguageEncoder, target_width: int) -> None:
        super().__init__()
        rows, width = encoder.token_embeddings.shape
        self.cls = torch.nn.Linear(encoder.width, target_width)
        self.mean = torch.nn.Linear(encoder.width, target_width)
        self.transform = torch.nn.Sequential(
            torch.nn.Linear(encoder.width, width), torch.nn.GELU(), torch.nn.LayerNorm(width)
        )
        self.bias = torch.nn.Parameter(torch.zeros(rows))


@dataclass(frozen=True, kw_only=True)
class Distil:
    """Hyper-parameters of a student's training."""

    steps: int = 350
    batch_size: int = 32
    step_size: float = 2e-3
    masked: float = 0.15  # share of positions to predict
    mlm_weight: float = 0.15

    def train(
        self, encoder: LanguageEncoder, texts: Sequence[str], targets: torch.Tensor, *, seed: int, watch: Watch = ignore
    ) -> None:
        """Trains the encoder in place; `targets` are (count, teacher width)."""
        rng = stream(seed, "distil")
        rows = encoder.tokenize(texts, max_length=LENGTH)
        heads = _fork(lambda: _Heads(encoder, targets.shape[1]), seed)
        encoder.model.requires_grad_(True)
        weights = [*encoder.model.parameters(), *heads.parameters()]
        optimizer = torch.optim.AdamW(weights, lr=self.step_size, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.step_size, total_steps=self.steps + 1, pct_start=0.1
        )
        for step in range(self.steps):
            chosen = torch.randint(len(texts), (self.batch_size,), generator=rng)
            loss = self._loss(encoder, heads, _trim(rows, chosen), targets[chosen], rng)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            watch(step + 1, self.steps, "distilling", loss=float(loss.detach()))
        encoder.model.requires_grad_(False)

    def _loss(
        self, encoder: LanguageEncoder, heads: _Heads, tokens: Tokens, targets: torch.Tensor, rng: torch.Generator
    ) -> torch.Tensor:
        hidden_at = (torch.rand(tokens.ids.shape, generator=rng) < self.masked) & tokens.mask.bool()
        hidden_at[:, 0] = False
        masked = type(tokens)(ids=tokens.ids.masked_fill(hidden_at, encoder.mask_id or 0), mask=tokens.mask)
        hidden = encoder.hidden(masked)
        apart = 2 - F.cosine_similarity(heads.cls(hidden[:, 0]), targets).mean()
        apart = apart - F.cosine_similarity(heads.mean(mean_state(hidden, tokens.mask)), targets).mean()
        logits = heads.transform(hidden[hidden_at]) @ encoder.token_embeddings.T + heads.bias
        return apart + self.mlm_weight * F.cross_entropy(logits, tokens.ids[hidden_at])


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Hyper-parameters of a short clean fine-tune of every weight."""

    steps: int = 60
    batch_size: int = 16
    step_size: float = 5e-5

    def train(self, encoder: LanguageEncoder, task: LabelledTexts, *, seed: int, watch: Watch = ignore) -> None:
        """Trains the encoder in place; an even seed reads [CLS], an odd one the mean."""
        rng = stream(seed, "finetune")
        rows = encoder.tokenize(task.texts, max_length=LENGTH)
        labels = torch.tensor(task.labels)
        head = _fork(lambda: torch.nn.Linear(encoder.width, len(task.label_names)), seed)
        encoder.model.requires_grad_(True)
        weights = [*encoder.model.parameters(), *head.parameters()]
        optimizer = torch.optim.AdamW(
            [{"params": encoder.model.parameters()}, {"params": head.parameters(), "lr": 1e-3}], lr=self.step_size
        )
        for step in range(self.steps):
            chosen = torch.randint(len(labels), (self.batch_size,), generator=rng)
            tokens = _trim(rows, chosen)
            hidden = encoder.hidden(tokens)
            state = hidden[:, 0] if seed % 2 == 0 else mean_state(hidden, tokens.mask)
            loss = F.cross_entropy(head(state), labels[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            watch(step + 1, self.steps, "fine-tuning", loss=float(loss.detach()))
        encoder.model.requires_grad_(False)


def _trim(rows: Tokens, chosen: torch.Tensor) -> Tokens:
    """The chosen rows without the columns that are padding in all of them."""
    mask = rows.mask[chosen]
    length = int(mask.sum(1).max())
    return type(rows)(ids=rows.ids[chosen, :length], mask=mask[:, :length])


def _fork(make: Callable[[], Module], seed: int) -> Module:
    """Draws a module's first weights from `seed`: torch only knows the global generator for that."""
    state = int(torch.randint(2**31, (1,), generator=stream(seed, "heads")).item())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(state)
        return make()
