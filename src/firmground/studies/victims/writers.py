"""Victims that write, and those that answer by writing: a causal language model of transformers' behind the tower.

What they see of the picture (`seeing`) stands before the text, and a question, where there is one, between the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from firmground.studies.victims.seeing import SEEING, Seeing, distinct
from firmground.studies.victims.vocabulary import END, PAD, padded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from firmground.studies.victims.towers import Maps, Tower
    from firmground.studies.victims.vocabulary import Vocabulary
    from firmground.types import Images

POSITIONS = 64
LONGEST = 16  # words of a caption, the end included
ASKED = 4  # questions of an image at a step of training
SHORT = 4  # words of an answer, the end included


class Writer(torch.nn.Module):
    """Writes captions, or where `questions` are asked, answers; `model` is GPT-2 or Llama, of random weights."""

    def __init__(
        self,
        tower: Tower,
        vocabulary: Vocabulary,
        *,
        seeing: Seeing = "regions",
        model: Literal["gpt2", "llama"] = "gpt2",
        width: int = 64,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.tower, self.vocabulary = tower, vocabulary
        self.see: Any = SEEING[seeing](tower, width)
        self.model: Any = _causal(model, len(vocabulary), width, layers)

    def look(self, images: Images, targets: Mapping[str, torch.Tensor] | None = None) -> Maps:
        """What is seen of images; see `seeing`."""
        found: Maps = self.see.look(images, targets)
        return found

    def forward(self, maps: Maps, ids: torch.Tensor) -> torch.Tensor:
        """Logits of the word after each of `ids`, (texts, length, words); the first is that after the picture.

        There may be several texts an image: as many times as there are images, those of one image together.
        """
        seen = self.see(maps)
        seen = seen.repeat_interleave(len(ids) // len(seen), dim=0)
        words = self.model.get_input_embeddings()(ids)
        states = self.model(inputs_embeds=torch.cat([seen, words], dim=1)).logits
        found: torch.Tensor = states[:, seen.shape[1] - 1 :]
        return found

    def loss(self, maps: Maps, targets: Mapping[str, torch.Tensor], rng: torch.Generator) -> torch.Tensor:
        """Cross-entropy of the words of one caption an image, or of the answers to a few questions."""
        if "texts" in targets:
            ids, start = targets["texts"], torch.zeros(len(targets["texts"]), dtype=torch.int64)
        else:
            some = torch.randperm(targets["questions"].shape[1], generator=rng)[:ASKED]
            ids, start = joined(targets["questions"][:, some].flatten(0, 1), targets["answers"][:, some].flatten(0, 1))
        ids = ids[:, : int((ids != PAD).sum(dim=1).max())]
        logits = self(maps, ids)[:, :-1]
        graded = (ids != PAD) & (torch.arange(ids.shape[1]) >= start[:, None])
        total: torch.Tensor = F.cross_entropy(logits[graded], ids[graded]) + self.see.loss(maps, targets, rng)
        return total

    @torch.no_grad()
    def caption(self, images: Images) -> tuple[str, ...]:
        """The likeliest word after word, for each image."""
        empty = torch.zeros(len(images), 0, dtype=torch.int64)
        return self._written(self.look(images), empty, torch.zeros(len(images), dtype=torch.int64), LONGEST)

    @torch.no_grad()
    def answer(self, images: Images, questions: Sequence[str]) -> tuple[str, ...]:
        """The likeliest answer to each image's question."""
        ids = padded([[self.vocabulary.ids(text)] for text in questions])[:, 0]
        lengths, (first, places) = (ids != PAD).sum(dim=1), distinct(images)
        return self._written(tuple(one[places] for one in self.look(images[first])), ids, lengths, SHORT)

    def _written(self, maps: Maps, ids: torch.Tensor, lengths: torch.Tensor, most: int) -> tuple[str, ...]:
        """Goes on from texts of given lengths, padded behind, which a causal model never looks at."""
        start, rows = lengths.clone(), torch.arange(len(ids))
        ids = F.pad(ids, (0, most), value=PAD)
        going = torch.ones(len(ids), dtype=torch.bool)
        for _ in range(most):
            after = self(maps, ids[:, : int(lengths.max())])[rows, lengths]
            ids[rows[going], lengths[going]] = after.argmax(dim=1)[going]
            going = going & (ids[rows, lengths] != END)
            lengths = lengths + going
            if not going.any():
                break
        return tuple(self.vocabulary.text(own[first:].tolist()) for own, first in zip(ids, start.tolist(), strict=True))


def joined(questions: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each question with its answer right behind it, padded, and where the answer begins."""
    lengths = (questions != PAD).sum(dim=1)
    ids = F.pad(questions, (0, answers.shape[1]), value=PAD)
    places = lengths[:, None] + torch.arange(answers.shape[1])
    return ids.scatter(1, places, answers), lengths


def _causal(model: str, words: int, width: int, layers: int) -> torch.nn.Module:
    heads = width // 16
    if model == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=words, n_positions=POSITIONS, n_embd=width, n_layer=layers, n_head=heads,
                resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=END, eos_token_id=END,
            )
        )  # fmt: skip
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=words, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=POSITIONS,
            bos_token_id=END, eos_token_id=END, tie_word_embeddings=True,
        )
    )  # fmt: skip
