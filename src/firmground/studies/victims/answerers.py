"""Victims that answer questions by choosing among known answers: question and image fused in two ways.

`film` lets the question scale and shift the channels of layers over the image (FiLM, Perez et al., AAAI 2018);
`attention` lets it look at places of the image twice (stacked attention, Yang et al., CVPR 2016).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
import torch.nn.functional as F

from firmground.studies.victims.seeing import SEEING, Seeing, distinct
from firmground.studies.victims.vocabulary import PAD, padded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from firmground.studies.victims.towers import Maps, Tower
    from firmground.studies.victims.vocabulary import Vocabulary
    from firmground.types import Images

Fusing: TypeAlias = Literal["film", "attention"]


class Answerer(torch.nn.Module):
    """Questions read by a GRU, fused with what is seen of their image, and a class a known answer."""

    def __init__(
        self,
        tower: Tower,
        vocabulary: Vocabulary,
        answers: Sequence[str],
        *,
        fusing: Fusing,
        seeing: Seeing = "regions",
        width: int = 64,
    ) -> None:
        super().__init__()
        self.tower, self.vocabulary, self.answers = tower, vocabulary, tuple(answers)
        self.see: Any = SEEING[seeing](tower, width)
        self.words = torch.nn.Embedding(len(vocabulary), 32, padding_idx=PAD)
        self.read = torch.nn.GRU(32, 2 * width, batch_first=True)
        self.fuse = Film(width) if fusing == "film" else Attention(width)
        self.choose = torch.nn.Sequential(
            torch.nn.Linear(5 * width, 4 * width), torch.nn.ReLU(), torch.nn.Linear(4 * width, len(self.answers))
        )

    def forward(self, maps: Maps, questions: torch.Tensor) -> torch.Tensor:
        """Logits of answers, (images, questions, answers), to (images, questions, words)."""
        seen = self.see(maps)
        flat = questions.flatten(0, 1)
        states, _ = self.read(self.words(flat))
        asked = states[torch.arange(len(flat)), (flat != PAD).sum(dim=1) - 1].view(*questions.shape[:2], -1)
        whole = seen.mean(dim=1, keepdim=True).expand(-1, questions.shape[1], -1)
        found: torch.Tensor = self.choose(torch.cat([asked, whole, self.fuse(seen, asked)], dim=-1))
        return found

    def look(self, images: Images, targets: Mapping[str, torch.Tensor] | None = None) -> Maps:
        """What is seen of images; see `seeing`."""
        found: Maps = self.see.look(images, targets)
        return found

    def loss(self, maps: Maps, targets: Mapping[str, torch.Tensor], rng: torch.Generator) -> torch.Tensor:
        """Cross-entropy of the answers to all questions of an image."""
        logits = self(maps, targets["questions"]).flatten(0, 1)
        total: torch.Tensor = F.cross_entropy(logits, targets["chosen"].flatten()) + self.see.loss(maps, targets, rng)
        return total

    @torch.no_grad()
    def answer(self, images: Images, questions: Sequence[str]) -> tuple[str, ...]:
        """The likeliest answer to each image's question."""
        ids, (first, places) = padded([[self.vocabulary.ids(text)] for text in questions]), distinct(images)
        best = self(tuple(one[places] for one in self.look(images[first])), ids)[:, 0].argmax(dim=1)
        return tuple(self.answers[number] for number in best.tolist())


class Film(torch.nn.Module):
    """Two layers at every place that the question modulates, then the mean and the maximum over places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulate = torch.nn.Linear(2 * width, 4 * width)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(2))

    def forward(self, seen: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """What each question finds in its image, (images, questions, 2 * width), at (images, places, width)."""
        turns = self.modulate(asked)[:, :, None].chunk(4, dim=-1)
        found = seen[:, None]
        for layer, scale, shift in zip(self.layers, turns[:2], turns[2:], strict=True):
            found = found + F.relu(layer(found) * (1 + scale) + shift)
        return torch.cat([found.mean(dim=2), found.amax(dim=2)], dim=-1)


class Attention(torch.nn.Module):
    """Two looks at the places that the question points to, the second knowing what the first one saw."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = torch.nn.ModuleList(torch.nn.Linear((2 + k) * width, width) for k in range(2))
        self.keys = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(2))

    def forward(self, seen: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """What both looks saw, (images, questions, 2 * width), at (images, places, width)."""
        known, looks = asked, []
        for query, key in zip(self.queries, self.keys, strict=True):
            weights = (query(known) @ key(seen).transpose(1, 2) / seen.shape[-1] ** 0.5).softmax(dim=-1)
            looks.append(weights @ seen)
            known = torch.cat([asked, looks[-1]], dim=-1)
        return torch.cat(looks, dim=-1)
