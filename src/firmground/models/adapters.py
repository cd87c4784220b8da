"""Puts a PEFT prompt (prompt tuning, P-tuning, prefix tuning) on an encoder, without running anything of its own.

PEFT reads far more of `adapter_config.json` than a prompt needs (tokenizers to fetch, classes to import). So the config
is rebuilt here from the few numbers that shape the prompt, and PEFT gets that one.

Beside PEFT's files a prompt of Firmground holds `firmground.json`; its `base_sha256` says which weights it belongs to.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from firmground.errors import AdapterError, ModelError, UnsafeModelError
from firmground.models.inspecting import read_object
from firmground.models.loading import quiet, weights_sha256

WEIGHTS = "adapter_model.safetensors"
CARD = "firmground.json"

SHAPE = ("num_virtual_tokens", "token_dim", "num_attention_heads", "num_layers", "num_transformer_submodules")
EXTRA: dict[str, tuple[str, ...]] = {
    "PROMPT_TUNING": (),
    "P_TUNING": (
        "encoder_reparameterization_type",
        "encoder_hidden_size",
        "encoder_num_layers",
        "encoder_dropout",
    ),
    "PREFIX_TUNING": ("encoder_hidden_size", "prefix_projection"),
}
# Families whose transformers class takes keys and values from outside.
PREFIXABLE = ("bert", "roberta", "xlm-roberta", "electra")


def virtual_positions(prompt: Any) -> int:
    """How many positions a loaded prompt puts before the text in the hidden states."""
    config = prompt.active_peft_config
    return 0 if config.peft_type == "PREFIX_TUNING" else int(config.num_virtual_tokens)


def load_prompt(adapter: Path, model: Any, *, folder: Path, source: str) -> Any:
    """Returns PEFT's model around `model`, the bare encoder of `folder`, for inference.

    The task the prompt was trained for does not matter here: its head is left out, and the forward pass returns the
    encoder's own output with the prompt in place. Raises `AdapterError` or `UnsafeModelError`.
    """
    settings = read_settings(adapter)
    refuse_surgery(adapter, model)
    check_base(adapter, settings, folder=folder, source=source)
    import peft

    kind = str(settings["peft_type"])
    if kind == "PREFIX_TUNING" and model.config.model_type not in PREFIXABLE:
        raise AdapterError(
            f"{adapter} is a prefix, which {model.config.model_type} models of transformers cannot take; expected one "
            f"of: {', '.join(PREFIXABLE)}"
        )
    classes = {
        "PROMPT_TUNING": peft.PromptTuningConfig,
        "P_TUNING": peft.PromptEncoderConfig,
        "PREFIX_TUNING": peft.PrefixTuningConfig,
    }
    shape = {key: settings[key] for key in (*SHAPE, *EXTRA[kind]) if settings.get(key) is not None}
    config = classes[kind](task_type="FEATURE_EXTRACTION", inference_mode=True, **shape)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".is_gradient_checkpointing.", category=FutureWarning
            )  # PEFT 0.21
            prompt = peft.PeftModelForFeatureExtraction.from_pretrained(
                model, str(adapter), config=config, is_trainable=False, autocast_adapter_dtype=False
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise AdapterError(
            f"{adapter} does not fit {source} ({reason}); load it on the encoder it was fitted on"
        ) from error
    check_finite(adapter, prompt)
    return prompt.to(model.dtype)


def read_settings(adapter: Path) -> dict[str, Any]:
    """The `adapter_config.json` of a prompt, once everything beside it has been checked."""
    try:
        settings = read_object(adapter, "adapter_config.json")
    except UnsafeModelError:
        raise
    except ModelError as error:
        raise AdapterError(f"{adapter} is no PEFT adapter: {error}") from error
    kind = settings.get("peft_type")
    if kind not in EXTRA:
        raise AdapterError(f"{adapter} is a PEFT adapter of type {kind!r}; expected one of: {', '.join(EXTRA)}")
    for key in ("num_virtual_tokens", "token_dim"):
        if not isinstance(settings.get(key), int) or not 0 < settings[key] <= 1 << 16:
            raise AdapterError(
                f"adapter_config.json of {adapter} says {key} is {settings.get(key)!r}; expected a count"
            )
    check_weights(adapter)
    return settings


def check_weights(adapter: Path) -> None:
    """Refuses pickled and broken prompt files."""
    path = adapter / WEIGHTS
    if not path.is_file():
        if (adapter / "adapter_model.bin").exists():
            raise UnsafeModelError(
                f"{adapter} has its prompt only as the pickle adapter_model.bin, and reading one can run code; save it "
                f"again with safe_serialization=True"
            )
        raise AdapterError(f"{adapter} has no {WEIGHTS}; expected what PEFT's save_pretrained writes")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterError(f"{path} is truncated or no safetensors file ({error}); get a new copy") from error
    if "prompt_embeddings" not in names:
        raise AdapterError(f"{path} holds no prompt_embeddings but {', '.join(names[:3]) or 'nothing'}")


def refuse_surgery(adapter: Path, model: Any) -> None:
    """Refuses a prompt whose file also holds weights of the encoder, which PEFT would write over the scanned ones."""
    own = {name for name in model.state_dict() if not name.startswith("pooler.")}
    with safe_open(adapter / WEIGHTS, framework="pt") as file:
        names = list(file.keys())
    for name in names:
        inner = name.removeprefix("base_model.")
        if inner in own or inner.partition(".")[2] in own:
            raise AdapterError(
                f"{adapter} is more than a prompt: it replaces the encoder's own tensor {name}; put those weights "
                f"into the encoder and scan that"
            )


def check_base(adapter: Path, settings: dict[str, Any], *, folder: Path, source: str) -> None:
    """Refuses a prompt of another encoder: by its weights' hash where that is known, else by name."""
    named = settings.get("base_model_name_or_path")
    recorded: Any = None
    if (adapter / CARD).is_file():
        card = read_card(adapter)
        recorded, named = card.get("base_sha256"), card.get("base_source") or named
    if recorded:
        if recorded != weights_sha256(folder):
            raise AdapterError(
                f"{adapter} was fitted on {named} (weights {str(recorded)[:12]}...), but {source} has the weights "
                f"{weights_sha256(folder)[:12]}...; load it on the encoder it was fitted on"
            )
        return
    if not named or Path(str(named)).name.lower() in (Path(source).name.lower(), folder.name.lower()):
        return
    if Path(str(named)).is_dir() and weights_sha256(str(named)) == weights_sha256(folder):
        return
    raise AdapterError(
        f"{adapter} was fitted on {named}, not on {source}; load it on that, or, if they are the same encoder, write "
        f"this name into base_model_name_or_path of its adapter_config.json"
    )


def read_card(adapter: Path) -> dict[str, Any]:
    """The `firmground.json` beside a prompt."""
    try:
        return read_object(adapter, CARD)
    except ModelError as error:
        raise AdapterError(str(error)) from error


def check_finite(adapter: Path, prompt: Any) -> None:
    """Refuses a prompt that is not made of finite numbers."""
    for name, tensor in prompt.prompt_encoder.named_parameters():
        if not tensor.isfinite().all():
            raise AdapterError(f"the tensor {name} of {adapter} is not finite; fit the prompt again")
