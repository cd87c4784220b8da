"""One adapter for every Hugging Face language encoder: token ids in, hidden states out.

The methods of every family speak to this class and to nothing of transformers. Token rows are built here, so that
special tokens, padding and positions are right for every family (BERT, RoBERTa, XLM-R, DistilBERT, ALBERT, ELECTRA,
DeBERTa v2/v3, MPNet, ModernBERT), and an encoder with a PEFT prompt on it looks like an encoder without one.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from firmground.errors import BrokenModelError
from firmground.models.adapters import load_prompt, virtual_positions
from firmground.models.inspecting import FAMILIES
from firmground.models.loading import load_parts, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["FAMILIES", "LanguageEncoder", "Tokens"]


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
    """A frozen encoder with its tokenizer, and with a PEFT prompt on it where one was loaded.

    `model` is the bare Hugging Face encoder (`AutoModel`). `source` names where it came from, `revision` the hub
    revision if any. `width` is the hidden size, `vocabulary` the number of token ids the tokenizer can produce.
    `prompt` is PEFT's wrapper around `model`, or None.

    With a prompt, `hidden` returns what a downstream head sees. Prompt tuning and P-tuning put `offset` virtual
    positions before the text: the first position (which BERT's pooler and most classifiers read) is then a virtual
    one, and position i of the tokens is found at `offset + i`. Prefix tuning adds none: `offset` is 0.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, source: str = "memory", revision: str | None = None, prompt: Any = None
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.source = source
        self.revision = revision
        self.prompt = prompt if prompt is None else prompt.eval().requires_grad_(False)

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
        """Loads a directory or hub id, and a PEFT prompt (a directory) onto it. Nothing of theirs is executed.

        Raises `UnsafeModelError`, `UnsupportedModelError` or `BrokenModelError` for the encoder, and `AdapterError`
        for a prompt that is broken or was trained on another encoder.
        """
        folder = resolve(str(source), revision=revision)
        model, tokenizer = load_parts(folder, dtype=dtype)
        prompt = None if adapter is None else load_prompt(Path(adapter), model, folder=folder, source=str(source))
        if prompt is not None:
            prompt.to(device)
        return cls(model.to(device), tokenizer, source=str(source), revision=revision, prompt=prompt)

    def cast(self, dtype: torch.dtype) -> LanguageEncoder:
        """A copy in another dtype, for screening; this encoder stays as it is."""
        whole = copy.deepcopy(self.model if self.prompt is None else self.prompt).to(dtype)
        model, prompt = (whole, None) if self.prompt is None else (whole.get_base_model(), whole)
        return LanguageEncoder(model, self.tokenizer, source=self.source, revision=self.revision, prompt=prompt)

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
    def offset(self) -> int:
        """Virtual positions before the first token in what `hidden` returns; 0 without a prompt or with a prefix."""
        return 0 if self.prompt is None else virtual_positions(self.prompt)

    @property
    def device(self) -> torch.device:
        return self.token_embeddings.device

    @property
    def dtype(self) -> torch.dtype:
        return self.token_embeddings.dtype

    @property
    def token_embeddings(self) -> torch.Tensor:
        """The input embedding matrix, (rows, embedding width)."""
        weight: torch.Tensor = self.model.get_input_embeddings().weight
        return weight

    @property
    def mask_id(self) -> int | None:
        return None if self.tokenizer.mask_token_id is None else int(self.tokenizer.mask_token_id)

    @cached_property
    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special ids before and after a text, as this tokenizer puts them."""
        probe = list(self.pieces("a"))
        framed = list(self.tokenizer("a").input_ids)
        for start in range(len(framed) - len(probe) + 1):
            if framed[start : start + len(probe)] == probe:
                return tuple(framed[:start]), tuple(framed[start + len(probe) :])
        raise BrokenModelError(f"the tokenizer of {self.source} changes a text when it adds special tokens")

    @cached_property
    def ordinary_ids(self) -> torch.Tensor:
        """Every token id that a text can hold: the vocabulary without special tokens, (count,)."""
        special = set(self.tokenizer.all_special_ids)
        special |= {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        known = sorted(set(self.tokenizer.get_vocab().values()) - special)
        return torch.tensor(known, dtype=torch.int64, device=self.device)

    @cached_property
    def max_length(self) -> int:
        """Positions the model has for tokens, special ones included (RoBERTa-like models lose those before padding)."""
        limit = int(getattr(self.model.config, "max_position_embeddings", 512))
        table = find_positions(self.model)
        lost = 0 if table is None or table.padding_idx is None else table.padding_idx + 1
        return limit - lost - self._virtual

    @property
    def _virtual(self) -> int:
        return 0 if self.prompt is None else int(self.prompt.active_peft_config.num_virtual_tokens)

    def tokenize(self, texts: Sequence[str], *, max_length: int = 128) -> Tokens:
        """Token ids of texts, framed, truncated and padded on the right, on the encoder's device."""
        batch = self.tokenizer(
            list(texts),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=min(max_length, self.max_length),
            return_tensors="pt",
        )
        return Tokens(ids=batch.input_ids.to(self.device), mask=batch.attention_mask.to(self.device))

    def pieces(self, text: str) -> tuple[int, ...]:
        """The token ids of a text without special tokens."""
        if self._plain is not None:
            return tuple(self._plain.encode(text, add_special_tokens=False).ids)
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def text_of(self, ids: Sequence[int]) -> str | None:
        """A text that, standing alone, tokenizes to exactly these ids without special tokens; None if none is found.

        A word's inner pieces (`##ing`) have none, nor has a token that the tokenizer never produces.
        """
        wanted = tuple(int(i) for i in ids)
        for text in self._spellings(list(wanted)):
            if self.pieces(text) == wanted:
                return text
        return None

    def _spellings(self, ids: list[int]) -> Iterator[str]:
        text = str((self._plain or self.tokenizer).decode(ids, skip_special_tokens=False))
        bare = text.strip()
        yield from dict.fromkeys((bare, text, f" {bare}"))
        tokens = [token or "" for token in self.tokenizer.convert_ids_to_tokens(ids)]
        joined = "".join(tokens).replace("\u2581", " ")
        yield from dict.fromkeys((joined.strip(), joined, "".join(tokens).replace("##", ""), " ".join(tokens)))

    @cached_property
    def _plain(self) -> Any:
        """The Rust tokenizer without padding and truncation, which calls leave behind; None for a Python one."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or not hasattr(backend, "no_padding"):
            return None
        plain = copy.deepcopy(backend)
        plain.no_padding()
        plain.no_truncation()
        return plain

    def frame_rows(self, rows: torch.Tensor) -> Tokens:
        """Puts special tokens around rows of token ids that are all of one length, (batch, length)."""
        before, after = (
            torch.tensor(ids, device=rows.device, dtype=rows.dtype).expand(len(rows), -1) for ids in self.frame
        )
        ids = torch.cat([before, rows, after], dim=1)
        return Tokens(ids=ids, mask=torch.ones_like(ids))

    def hidden(self, tokens: Tokens) -> torch.Tensor:
        """Last hidden states, (batch, offset + length, width), in the model's dtype; autograd as the caller set it."""
        return self._last(input_ids=tokens.ids, attention_mask=tokens.mask)

    def hidden_from_embeddings(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The same from input embeddings (batch, length, embedding width), for searches by gradient."""
        table = find_positions(self.model)
        if self.prompt is None or self.offset or table is None or table.padding_idx is None:
            return self._last(inputs_embeds=embeddings, attention_mask=mask)
        # RoBERTa counts positions from the prefix on when it is given ids, and forgets to with embeddings
        first = int(table.padding_idx) + 1 + self._virtual
        positions = torch.arange(first, first + embeddings.shape[1], device=embeddings.device)
        whole = torch.cat([mask.new_ones(len(mask), self._virtual), mask], dim=1)
        states: torch.Tensor = self.model(
            inputs_embeds=embeddings,
            attention_mask=whole,
            position_ids=positions.expand(len(embeddings), -1),
            past_key_values=self.prompt.get_prompt(len(embeddings)),
        ).last_hidden_state
        return states

    def _last(self, **inputs: torch.Tensor) -> torch.Tensor:
        whole = self.model if self.prompt is None else self.prompt
        states: torch.Tensor = whole(**inputs).last_hidden_state
        return states


def find_positions(model: Any) -> Any:
    """The module of learned absolute positions, or None."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module
    return None
