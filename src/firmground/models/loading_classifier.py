"""Loads a Hugging Face image-classification model as safely as `loading` does a language encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firmground.errors import BrokenModelError, UnsupportedModelError
from firmground.models.inspecting import count_numbers, read_config, refuse_quantized, weight_files
from firmground.models.loading import one_sentence, quiet, read_weights
from firmground.models.loading_dual import check_buffers, check_tower, trimmed
from firmground.models.preprocessing import Preprocessing, read_preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    import torch

CLASSIFIER_FAMILIES = (
    "resnet", "regnet", "convnext", "convnextv2", "efficientnet", "mobilenet_v2", "vit", "deit", "beit", "dinov2",
    "swin",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassifierParts:
    """A model on the CPU, the names of its classes in the order of its logits, and what its image processor does."""

    model: Any
    class_names: tuple[str, ...]
    preprocessing: Preprocessing


def load_classifier_parts(folder: Path, *, dtype: torch.dtype) -> ClassifierParts:
    """Returns the parts of an image classifier in a folder that `loading.resolve` gave.

    Raises `UnsafeModelError`, `UnsupportedModelError` or `BrokenModelError`. After it every tensor came from the files
    and is finite.
    """
    settings = inspect_classifier_folder(folder)
    preprocessing = read_preprocessing(folder)
    model = read_classifier(folder, settings, dtype=dtype)
    check_buffers(folder, model)
    names = model.config.id2label
    return ClassifierParts(
        model=model, class_names=tuple(str(names[i]) for i in range(len(names))), preprocessing=preprocessing
    )


def inspect_classifier_folder(folder: Path) -> dict[str, Any]:
    """Returns a classifier's config as it may be handed to transformers; refuses everything doubtful."""
    config = read_config(folder)
    family = config.get("model_type")
    if family not in CLASSIFIER_FAMILIES:
        raise UnsupportedModelError(
            f"{folder} is a model of type {family!r}; expected an image classifier of one of: "
            f"{', '.join(CLASSIFIER_FAMILIES)}"
        )
    kinds = config.get("architectures") or ["nothing"]
    if not str(kinds[0]).endswith("ForImageClassification"):
        raise UnsupportedModelError(f"{folder} holds a {kinds[0]}, which gives no logits; expected an image classifier")
    refuse_quantized(folder, config)
    check_tower(folder, config)
    count_numbers(weight_files(folder))
    return dict(trimmed(config))


def read_classifier(folder: Path, settings: dict[str, Any], *, dtype: torch.dtype) -> Any:
    """Lets transformers read the weights; `settings` is the config as the inspection let it pass."""
    import torch
    from transformers import AutoConfig, AutoModelForImageClassification

    family = settings.pop("model_type")
    with quiet(), torch.random.fork_rng(devices=[]):
        with one_sentence(f"the config.json of {folder} does not describe a {family} model"):
            config = AutoConfig.for_model(family, **settings)
        model = read_weights(AutoModelForImageClassification, folder, config, dtype=dtype)
    if sorted(model.config.id2label) != list(range(len(model.config.id2label))):
        raise BrokenModelError(f"config.json of {folder} does not name its classes 0, 1, 2 ...; get a complete copy")
    return model
