"""An encoder with a classification head on it, sharing the encoder's weights."""

from __future__ import annotations

import copy
import warnings
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import torch

from firmground.errors import AdapterError
from firmground.models.adapters import EXTRA, SHAPE, check_finite
from firmground.models.loading import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from firmground.models.language import LanguageEncoder


class Task(StrEnum):
    """What a head predicts; the values are the names of Hugging Face pipelines."""

    TEXTS = "text-classification"
    WORDS = "token-classification"


PEFT_TASKS = {Task.TEXTS: "SEQ_CLS", Task.WORDS: "TOKEN_CLS"}

# The head of every family: dense, tanh, linear. BERT-like classes keep the first two in the encoder's pooler, which
# pretraining may have left random or which a checkpoint may lack; so it is trained, and saved, with the head.
HEAD_MODULES = ("pooler", "classifier", "pre_classifier", "score", "head")


def with_head(encoder: LanguageEncoder, task: Task, label_names: Sequence[str]) -> Any:
    """The Hugging Face classification model of the encoder's family with the encoder's own tensors in it.

    The head is new and random (from torch's global generator: fork it). The encoder's modules stay untouched.
    """
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    if encoder.prompt is not None:
        raise AdapterError(f"{encoder.source} already has a prompt on it; pass the encoder without one")
    config = copy.deepcopy(encoder.model.config)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    if task is Task.TEXTS:
        config.problem_type = "single_label_classification"
    classes = {Task.TEXTS: AutoModelForSequenceClassification, Task.WORDS: AutoModelForTokenClassification}
    build: Any = classes[task].from_config
    model = build(config, dtype=encoder.dtype)
    report = model.base_model.load_state_dict(encoder.model.state_dict(), strict=False, assign=True)
    if lost := [name for name in report.missing_keys if not name.startswith("pooler.")]:
        raise AdapterError(f"a {encoder.family} classifier needs {lost[0]}, which the encoder {encoder.source} lacks")
    model.name_or_path = encoder.source
    return model.to(encoder.device).requires_grad_(False).eval()


def head_modules(model: Any) -> list[str]:
    """Names of the modules that must be trained and saved with the prompt, as PEFT's `modules_to_save` matches them."""
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    return [name for name in HEAD_MODULES if name in names]


@contextmanager
def calm() -> Iterator[None]:
    """Silences what PEFT says of its own use of transformers; missing tensors are an error, not a warning."""
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        warnings.filterwarnings("error", message="Found missing adapter keys")
        yield


def put_on(model: Any, folder: Path, settings: dict[str, Any], task: Task) -> Any:
    """Loads a saved prompt and head onto a classification model, for inference.

    PEFT gets a config of the few numbers that shape a prompt, not the file's own: that may name code and tokenizers.
    """
    import peft

    kind = settings["peft_type"]
    kinds = {
        "PROMPT_TUNING": peft.PromptTuningConfig,
        "P_TUNING": peft.PromptEncoderConfig,
        "PREFIX_TUNING": peft.PrefixTuningConfig,
    }
    shape = {key: settings[key] for key in (*SHAPE, *EXTRA[kind]) if settings.get(key) is not None}
    config = kinds[kind](task_type=PEFT_TASKS[task], inference_mode=True, modules_to_save=head_modules(model), **shape)
    try:
        with calm():
            loaded = peft.PeftModel.from_pretrained(model, str(folder), config=config)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise AdapterError(f"{folder} does not fit {model.name_or_path} ({reason}); fit the prompt again") from error
    check_finite(folder, loaded)
    return loaded.requires_grad_(False).eval()


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that training changes: the prompt's and the head's."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
