"""A tuned prompt: it predicts, becomes a Hugging Face pipeline, and is saved as a PEFT adapter."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from firmground.drafts import drafted
from firmground.errors import AdapterError, ModelError, OutputError
from firmground.models.adapters import CARD, check_base, read_card, read_settings, refuse_surgery
from firmground.models.language import LanguageEncoder
from firmground.models.loading import quiet, resolve, weights_sha256
from firmground.prompts.heads import Task, put_on, with_head
from firmground.prompts.rows import NO_TARGET, Rows, word_rows
from firmground.prompts.training import fast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCHEMA = "firmground/soft-prompt/1"


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """A frozen encoder with a trained prompt and head. `model` is PEFT's; its logits have no virtual positions.

    `base_sha256` is that of the encoder's weight files, None for an encoder that was never saved.
    """

    model: Any
    tokenizer: Any
    task: Task
    label_names: tuple[str, ...]
    base_source: str
    base_sha256: str | None
    max_length: int = 96
    measurements: dict[str, float] = field(default_factory=dict)

    def predict(self, texts: Sequence[str], *, batch_size: int = 64) -> list[int]:
        """The label of every text, in batches of like lengths, in bfloat16 on wide encoders."""
        self._expect(Task.TEXTS)
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_length).input_ids
        labels = [0] * len(texts)
        for order, logits in self._logits(tuple(map(tuple, ids)), batch_size):
            for row, label in zip(order, logits.argmax(-1).tolist(), strict=True):
                labels[row] = label
        return labels

    def predict_words(self, texts: Sequence[str], *, batch_size: int = 64) -> list[list[int]]:
        """The label of every word between white space: that of its first piece, or "O" (0) where that was cut off."""
        self._expect(Task.WORDS)
        ids, heads = word_rows(self.tokenizer, texts, self.max_length)
        labels: list[list[int]] = [[] for _ in texts]
        for order, logits in self._logits(ids, batch_size):
            for row, found in zip(order, logits.argmax(-1).tolist(), strict=True):
                labels[row] = [0 if head is None else found[head] for head in heads[row]]
        return labels

    def pipeline(self, **options: Any) -> Any:
        """A `transformers` pipeline of the task; it truncates as training did. `options` go to it."""
        from transformers import pipeline

        if self.task is Task.TEXTS:
            options = {"truncation": True, "max_length": self.max_length, **options}
        with quiet():
            return pipeline(
                self.task.value, model=self.model, tokenizer=self.tokenizer, device=self.model.device, **options
            )

    def save(self, folder: str | Path) -> Path:
        """Writes the PEFT adapter and `firmground.json`, whole or not at all. Raises `OutputError`."""
        target = Path(folder)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError(f"{target} exists and is not empty; choose another folder or remove it")
        try:
            with drafted(target) as draft:
                self.model.save_pretrained(draft, safe_serialization=True, save_embedding_layers=False)
                (draft / CARD).write_text(json.dumps(self._card(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"the prompt could not be written to {target}: {error.strerror or error}") from error
        return target

    def _card(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "base_sha256": self.base_sha256,
            "base_source": self.base_source,
            "labels": list(self.label_names),
            "task": self.task.value,
            "max_length": self.max_length,
            "measurements": self.measurements,
        }

    def _expect(self, task: Task) -> None:
        if self.task is not task:
            raise AdapterError(f"this prompt was tuned for {self.task}, not for {task}")

    def _logits(
        self, ids: tuple[tuple[int, ...], ...], batch_size: int
    ) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
        rows = Rows(ids=ids, targets=(NO_TARGET,) * len(ids), pad_id=self.tokenizer.pad_token_id)
        for batch in rows.batches(batch_size, device=self.model.device):
            with torch.inference_mode(), fast(self.model, batch.ids.device):
                logits = self.model(input_ids=batch.ids, attention_mask=batch.mask).logits
            yield batch.order, logits


def load_tuned(encoder_source: str | Path, folder: str | Path, *, revision: str | None = None) -> Tuned:
    """Loads a saved prompt on the encoder it was tuned for. Raises `AdapterError` for another encoder."""
    source, path = str(encoder_source), Path(folder)
    card = _read_card(path)
    settings = read_settings(path)
    base = resolve(source, revision=revision)
    check_base(path, settings, folder=base, source=source)
    encoder = LanguageEncoder.load(source, revision=revision)
    task, names = Task(card["task"]), tuple(card["labels"])
    with torch.random.fork_rng(devices=[]):
        model = with_head(encoder, task, names)
    refuse_surgery(path, encoder.model)
    model = put_on(model, path, settings, task)
    trim(model)
    return Tuned(
        model=model,
        tokenizer=encoder.tokenizer,
        task=task,
        label_names=names,
        base_source=source,
        base_sha256=card["base_sha256"],
        max_length=int(card.get("max_length", 96)),
        measurements=dict(card.get("measurements", {})),
    )


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    if not path.is_file():
        raise AdapterError(f"{folder} has no {CARD}; expected a folder that 'firmground prompt fit' wrote")
    card = read_card(folder)
    labels = card.get("labels")
    if card.get("schema") != SCHEMA or card.get("task") not in list(Task) or not isinstance(labels, list):
        raise AdapterError(
            f"{path} is not of the schema {SCHEMA} but {card.get('schema')!r}, or lacks its task or labels; "
            f"fit the prompt again with this version"
        )
    return card


def trim(model: Any) -> None:
    """Makes a PEFT model drop its virtual positions from the logits of words, as pipelines and metrics expect."""

    def cut(_: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        given = kwargs.get("input_ids", kwargs.get("inputs_embeds"))
        length = given.shape[1] if given is not None else args[0].shape[1]
        if output.logits.dim() == 3:
            output.logits = output.logits[:, -length:]
        return output

    model.register_forward_hook(cut, with_kwargs=True)


def fingerprint(source: str, revision: str | None = None) -> str | None:
    """SHA-256 of the weight files of a directory or hub id; None for an encoder in memory."""
    if source == "memory":
        return None
    try:
        return weights_sha256(resolve(source, revision=revision))
    except ModelError:
        return None
