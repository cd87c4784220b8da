"""One adapter for every Hugging Face language encoder: token ids in, hidden states out.

The methods of every family speak to this class and to nothing of transformers. Token rows are built here, so that
special tokens, padding and positions are right for every family (BERT, RoBERTa, XLM-R, DistilBERT, ALBERT, ELECTRA,
DeBERTa v2/v3, MPNet, ModernBERT), and an encoder with a PEFT prompt on it looks like an encoder without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from firmground.errors import BrokenModelError, UnsupportedModelError
from firmground.models.loading import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

FAMILIES = (
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "albert",
    "electra",
    "deberta",
    "deberta-v2",
    "mpnet",
    "modernbert",
)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A padded batch: `ids` and `mask`, both (batch, length) int64; `mask` is 1 at real positions."""

    ids: torch.Tensor
    mask: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> Tokens:
        return Tokens(ids=self.ids[rows], mask=self.mask[rows])


class LanguageEncoder:
    """A frozen encoder with its tokenizer.

    `model` is the bare Hugging Face encoder (`AutoModel`). `source` names where it came from, `revision` the hub
    revision if any. `width` is the hidden size, `vocabulary` the number of token ids the tokenizer can produce.
    """

    def __init__(self, model: Any, tokenizer: Any, *, source: str = "memory", revision: str | None = None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.source = source
        self.revision = revision

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        adapter: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> LanguageEncoder:
        """Loads a directory or hub id. Nothing of the model's is executed."""
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        folder = resolve(str(source), revision=revision)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if config.model_type not in FAMILIES:
            raise UnsupportedModelError(
                f"{source} is a {config.model_type} model; expected a language encoder of one of: {', '.join(FAMILIES)}"
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModel.from_pretrained(folder, use_safetensors=True, trust_remote_code=False, dtype=dtype)
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            raise BrokenModelError(
                f"the tokenizer of {source} has {len(tokenizer)} tokens but the embedding matrix only "
                f"{model.get_input_embeddings().weight.shape[0]} rows; they do not belong together"
            )
        return cls(model.to(device), tokenizer, source=str(source), revision=revision)

    @property
    def family(self) -> str:
        return str(self.model.config.model_type)

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def vocabulary(self) -> int:
        return len(self.tokenizer)

    @property
    def device(self) -> torch.device:
        return next(iter(self.model.parameters())).device

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self.model.parameters())).dtype

    @property
    def token_embeddings(self) -> torch.Tensor:
        """The input embedding matrix, (rows, embedding width)."""
        return self.model.get_input_embeddings().weight

    @property
    def mask_id(self) -> int | None:
        return self.tokenizer.mask_token_id

    @cached_property
    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special ids before and after a text, as this tokenizer puts them."""
        probe = self.tokenizer("a", add_special_tokens=False).input_ids
        framed = self.tokenizer("a").input_ids
        for start in range(len(framed) - len(probe) + 1):
            if framed[start : start + len(probe)] == probe:
                return tuple(framed[:start]), tuple(framed[start + len(probe) :])
        raise BrokenModelError(f"the tokenizer of {self.source} changes a text when it adds special tokens")

    @cached_property
    def ordinary_ids(self) -> torch.Tensor:
        """Every token id that a text can hold: the vocabulary without special tokens, (count,)."""
        special = set(self.tokenizer.all_special_ids)
        return torch.tensor([i for i in range(self.vocabulary) if i not in special], device=self.device)

    @property
    def max_length(self) -> int:
        """Positions the model has, special tokens included (RoBERTa-like models lose those before padding)."""
        limit = int(getattr(self.model.config, "max_position_embeddings", 512))
        offset = (self.tokenizer.pad_token_id or 0) + 1 if self.family in ("roberta", "xlm-roberta", "mpnet") else 0
        return limit - offset

    def tokenize(self, texts: Sequence[str], *, max_length: int = 128) -> Tokens:
        """Token ids of texts, framed, truncated and padded, on the encoder's device."""
        batch = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=min(max_length, self.max_length),
            return_tensors="pt",
        )
        return Tokens(ids=batch.input_ids.to(self.device), mask=batch.attention_mask.to(self.device))

    def pieces(self, text: str) -> tuple[int, ...]:
        """The token ids of a text without special tokens."""
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def frame_rows(self, rows: torch.Tensor) -> Tokens:
        """Puts special tokens around rows of token ids that are all of one length, (batch, length)."""
        before, after = (
            torch.tensor(ids, device=rows.device, dtype=rows.dtype).expand(len(rows), -1) for ids in self.frame
        )
        ids = torch.cat([before, rows, after], dim=1)
        return Tokens(ids=ids, mask=torch.ones_like(ids))

    def hidden(self, tokens: Tokens) -> torch.Tensor:
        """Last hidden states, (batch, length, width), in the model's dtype; autograd as the caller set it."""
        return self.model(input_ids=tokens.ids, attention_mask=tokens.mask).last_hidden_state

    def hidden_from_embeddings(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The same from input embeddings (batch, length, embedding width), for searches by gradient."""
        return self.model(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
