"""Soft prompts on a frozen language encoder, through PEFT: prompt tuning, P-tuning, and prefix tuning.

All three train the prompt and the head (dense, tanh, linear; see `heads`) together and leave the encoder as it is.

Where they depart from their papers: a head instead of a verbalizer; the prompt starts at real inputs, not at noise,
which makes small data enough. The first virtual token starts as [CLS]: PEFT puts the prompt before [CLS], and the
heads of Hugging Face models read the first position, so that position begins as what pretraining has put there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from firmground.data.texts import LabelledTexts, LabelledWords, split
from firmground.errors import AdapterError, DataError
from firmground.models.adapters import PREFIXABLE
from firmground.prompts.heads import PEFT_TASKS, Task, calm, head_modules, with_head
from firmground.prompts.rows import Rows, rows_of
from firmground.prompts.training import train
from firmground.prompts.tuned import Tuned, fingerprint, trim
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.models.language import LanguageEncoder


@dataclass(frozen=True, kw_only=True)
class PromptTuning:
    """Virtual tokens before the input. Lester et al., EMNLP 2021."""

    virtual_tokens: int = 8
    step_size: float = 1e-2
    head_step_size: float = 1e-3
    epochs: int = 3
    patience: int = 1
    batch_size: int = 16
    max_length: int = 96
    validation: float = 0.15  # share of the data that picks the epoch

    def fit(
        self,
        encoder: LanguageEncoder,
        data: LabelledTexts | LabelledWords,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> Tuned:
        """Learns a prompt for `data`; the encoder stays as it was."""
        from peft import PromptTuningConfig

        config = PromptTuningConfig(num_virtual_tokens=self.virtual_tokens)
        return _fit(self, config, encoder, data, rng=rng, watch=watch)


@dataclass(frozen=True, kw_only=True)
class PTuning:
    """Virtual tokens before the input, written by a small network. Liu et al., "GPT Understands, Too", 2021."""

    virtual_tokens: int = 8
    network_width: int = 128
    step_size: float = 1e-3
    head_step_size: float = 1e-3
    epochs: int = 3
    patience: int = 1
    batch_size: int = 16
    max_length: int = 96
    validation: float = 0.15

    def fit(
        self,
        encoder: LanguageEncoder,
        data: LabelledTexts | LabelledWords,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> Tuned:
        """Learns a prompt for `data`; the encoder stays as it was."""
        from peft import PromptEncoderConfig

        config = PromptEncoderConfig(num_virtual_tokens=self.virtual_tokens, encoder_hidden_size=self.network_width)
        return _fit(self, config, encoder, data, rng=rng, watch=watch)


@dataclass(frozen=True, kw_only=True)
class PrefixTuning:
    """Keys and values before the input in every layer. Liu et al., "P-Tuning v2", ACL 2022."""

    virtual_tokens: int = 8
    step_size: float = 1e-2
    head_step_size: float = 1e-3
    epochs: int = 3
    patience: int = 1
    batch_size: int = 16
    max_length: int = 96
    validation: float = 0.15

    def fit(
        self,
        encoder: LanguageEncoder,
        data: LabelledTexts | LabelledWords,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> Tuned:
        """Learns a prefix for `data`; the encoder stays as it was.

        Raises `AdapterError` for families whose transformers class takes no keys and values from outside.
        """
        if encoder.family not in PREFIXABLE:
            raise AdapterError(
                f"PEFT cannot put a prefix on a {encoder.family} encoder, only on {', '.join(PREFIXABLE)}; "
                f"use PromptTuning or PTuning"
            )
        from peft import PrefixTuningConfig

        config = PrefixTuningConfig(num_virtual_tokens=self.virtual_tokens)
        return _fit(self, config, encoder, data, rng=rng, watch=watch)


SoftPrompt = PromptTuning | PTuning | PrefixTuning


def _fit(
    method: SoftPrompt,
    config: Any,
    encoder: LanguageEncoder,
    data: LabelledTexts | LabelledWords,
    *,
    rng: torch.Generator,
    watch: Watch,
) -> Tuned:
    started = time.perf_counter()
    train_rows, held_out = _parts(method, encoder, data, rng)
    task = Task.TEXTS if isinstance(data, LabelledTexts) else Task.WORDS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(1 << 62, (1,), generator=rng)))
        model = _wrap(encoder, config, task, data.label_names)
    _start_at_inputs(model, encoder, train_rows, rng)
    trim(model)
    fitted = train(model, train_rows, held_out, method, rng=rng, watch=watch)
    return Tuned(
        model=model,
        tokenizer=encoder.tokenizer,
        task=task,
        label_names=tuple(data.label_names),
        base_source=encoder.source,
        base_sha256=fingerprint(encoder.source, encoder.revision),
        max_length=method.max_length,
        measurements={
            "validation_accuracy": fitted.accuracy,
            "validation_count": float(len(held_out)),
            "best_epoch": float(fitted.epochs),
            "seconds": time.perf_counter() - started,
        },
    )


def _parts(
    method: SoftPrompt, encoder: LanguageEncoder, data: LabelledTexts | LabelledWords, rng: torch.Generator
) -> tuple[Rows, Rows]:
    labels = data.labels if isinstance(data, LabelledTexts) else [label for row in data.labels for label in row]
    if len(data) < 4 or len(set(labels)) < 2:
        raise DataError(
            f"tuning needs four samples of at least two classes, got {len(data)} samples of {len(set(labels))} classes"
        )
    room = encoder.max_length - method.virtual_tokens
    if room < 8:
        raise AdapterError(
            f"{method.virtual_tokens} virtual tokens leave no room for text in an encoder of {encoder.max_length} "
            f"positions; use fewer"
        )
    parts: Any = split  # its type variable takes one of the two kinds, not their union
    held_out, rest = parts(data, method.validation, rng)
    length = min(method.max_length, room)
    return rows_of(encoder.tokenizer, rest, length), rows_of(encoder.tokenizer, held_out, length)


def _wrap(encoder: LanguageEncoder, config: Any, task: Task, label_names: tuple[str, ...]) -> Any:
    from peft import PeftType, get_peft_model

    model = with_head(encoder, task, label_names)
    inside = config.peft_type == PeftType.PREFIX_TUNING
    config.task_type = PEFT_TASKS[task]
    config.token_dim = encoder.width if inside else encoder.token_embeddings.shape[1]
    config.num_layers = encoder.model.config.num_hidden_layers
    config.num_attention_heads = encoder.model.config.num_attention_heads
    config.modules_to_save = head_modules(model)
    config.base_model_name_or_path = encoder.source
    with calm():
        return get_peft_model(model, config).eval()


@torch.no_grad()
def _start_at_inputs(model: Any, encoder: LanguageEncoder, rows: Rows, rng: torch.Generator) -> None:
    """Writes [CLS] and tokens of the training texts into the prompt, or their keys and values into the prefix."""
    prompt = model.prompt_encoder["default"]
    config = model.active_peft_config
    ids = torch.tensor([token for row in rows.ids for token in row[1:-1]])
    picks = ids[torch.randint(len(ids), (config.num_virtual_tokens,), generator=rng)].to(encoder.device)
    picks[0] = rows.ids[0][0]
    start = encoder.token_embeddings[picks].float()
    if config.peft_type == "PROMPT_TUNING":
        prompt.embedding.weight.copy_(start)
    elif config.peft_type == "P_TUNING":
        inner = prompt.mlp_head[:-1](prompt.embedding.weight)
        last = prompt.mlp_head[-1]
        # in float64, small directions left out: rows nearly alike would blow rounding up into other weights
        given, wanted = inner.double().cpu(), (start - last.bias).double().cpu()
        last.weight.copy_(torch.linalg.lstsq(given, wanted, rcond=1e-4, driver="gelsd").solution.T)
    else:
        prompt.embedding.weight.copy_(_keys_and_values(encoder, picks))


def _keys_and_values(encoder: LanguageEncoder, ids: torch.Tensor) -> torch.Tensor:
    """What a text of these tokens leaves in every layer, as PEFT lays a prefix out: (tokens, layers * 2 * width)."""
    from transformers import DynamicCache

    cache = DynamicCache()
    encoder.model(input_ids=ids[None], past_key_values=cache)
    layers: list[Any] = list(cache.layers)
    states = [state[0].transpose(0, 1).flatten(1) for layer in layers for state in (layer.keys, layer.values)]
    return torch.cat(states, dim=1)
