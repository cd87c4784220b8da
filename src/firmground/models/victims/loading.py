"""Loads a victim from a directory or the hub as safely as `firmground.models.loading` does an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from firmground.errors import BrokenModelError, UnsupportedModelError
from firmground.models.inspecting import (
    check_sizes,
    check_tokenizer_files,
    count_numbers,
    read_config,
    weight_files,
)
from firmground.models.loading import check_complete, one_sentence, quiet, resolve
from firmground.models.loading_dual import check_buffers, check_kind, check_tower, trimmed
from firmground.models.preprocessing import read_preprocessing
from firmground.models.victims.detectors import Owl
from firmground.models.victims.parts import VISION, VictimParts
from firmground.models.victims.segmenters import ClipSeg, GroupViT
from firmground.models.victims.writers import IMAGE, BlipAnswerer, BlipCaptioner, Git, Llava

if TYPE_CHECKING:
    from pathlib import Path

Victim: TypeAlias = ClipSeg | GroupViT | Owl | BlipCaptioner | BlipAnswerer | Git | Llava
ADAPTERS: dict[str, Any] = {  # by transformers' class
    "CLIPSegForImageSegmentation": ClipSeg,
    "GroupViTModel": GroupViT,
    "OwlViTForObjectDetection": Owl,
    "Owlv2ForObjectDetection": Owl,
    "BlipForConditionalGeneration": BlipCaptioner,
    "BlipForQuestionAnswering": BlipAnswerer,
    "GitForCausalLM": Git,
    "LlavaForConditionalGeneration": Llava,
}
VERBS = {"segmentation": "segment", "detection": "detect", "captioning": "caption", "vqa": "answer"}
LLAVA_VISION = ("clip_vision_model", "siglip_vision_model")
LLAVA_TEXT = ("llama", "mistral", "qwen2", "phi", "gemma")


def load_victim(
    source: str | Path,
    *,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Victim:
    """Loads a directory or hub id of one of `ADAPTERS`' classes; nothing that came with it is executed.

    Raises `UnsafeModelError`, `UnsupportedModelError` or `BrokenModelError`.
    """
    folder = resolve(str(source), revision=revision)
    name, settings = inspect_victim(folder)
    preprocessing = read_preprocessing(folder)
    model, tokenizer = read_victim(folder, name, settings, dtype=dtype)
    parts = VictimParts(
        model=model.to(device).eval().requires_grad_(False),
        tokenizer=tokenizer,
        preprocessing=preprocessing,
        source=str(source),
    )
    check_fit(folder, parts)
    victim: Victim = ADAPTERS[name](parts=parts)
    return victim


def tasks_of(victim: object) -> tuple[str, ...]:
    """The tasks a victim can be evaluated on, by what it can do."""
    return tuple(task for task, verb in VERBS.items() if callable(getattr(victim, verb, None)))


def inspect_victim(folder: Path) -> tuple[str, dict[str, Any]]:
    """The name of a victim's class and its config as it may be handed to transformers; refuses everything doubtful."""
    config = read_config(folder)
    names = config.get("architectures") or ["nothing"]
    name = str(names[0])
    if name not in ADAPTERS or config.get("model_type") not in VISION:
        raise UnsupportedModelError(
            f"{folder} holds a {name} of type {config.get('model_type')!r}; expected a victim of one of: "
            f"{', '.join(ADAPTERS)}"
        )
    check_tokenizer_files(folder)
    numbers = count_numbers(weight_files(folder))
    check_tower(folder, config)
    for part in ("text_config", "vision_config"):
        tower = config.get(part, {})
        if not isinstance(tower, dict):
            raise BrokenModelError(f"config.json of {folder} has no {part}; get a complete copy of the model")
        check_tower(folder, tower)
        check_sizes(folder, tower, numbers)
    if config["model_type"] == "llava":
        check_kind(folder, config.get("vision_config", {}), LLAVA_VISION)
        check_kind(folder, config.get("text_config", {}), LLAVA_TEXT)
    return name, trimmed(config)


def read_victim(folder: Path, name: str, settings: dict[str, Any], *, dtype: torch.dtype) -> tuple[Any, Any]:
    """Lets transformers read a model and its tokenizer; every tensor came from the files and is finite."""
    import transformers

    family = settings.pop("model_type")
    with quiet(), torch.random.fork_rng(devices=[]):
        with one_sentence(f"the config.json of {folder} does not describe a {family} model"):
            config = transformers.AutoConfig.for_model(family, **settings)
        with one_sentence(f"the tokenizer of {folder} cannot be read"):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, config=config, trust_remote_code=False, local_files_only=True
            )
        with one_sentence(f"the weights of {folder} do not fit its config.json"):
            model, report = getattr(transformers, name).from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    check_complete(folder, model, report["missing_keys"])
    check_buffers(folder, model)
    return model, tokenizer


def check_fit(folder: Path, parts: VictimParts) -> None:
    """Refuses a tokenizer or an image processor that belongs to another model."""
    rows = max(
        module.weight.shape[0]
        for name, module in parts.model.named_modules()
        if isinstance(module, torch.nn.Embedding) and "position" not in name
    )
    largest = max(parts.tokenizer.get_vocab().values(), default=-1) + 1
    if largest > rows:
        raise BrokenModelError(
            f"the tokenizer of {folder} has {largest} tokens but the embedding matrix only {rows} rows; they do not "
            f"belong together"
        )
    if not parts.tokenizer("a").input_ids:
        raise BrokenModelError(f"the tokenizer of {folder} has no ordinary tokens; get a complete copy of the model")
    side = getattr(parts.model.config.vision_config, "image_size", None)
    if parts.family not in ("clipseg", "git") and side != parts.preprocessing.size:  # those interpolate positions
        raise BrokenModelError(
            f"the image processor of {folder} makes images of {parts.preprocessing.size} pixels, and the model takes "
            f"{side}; they do not belong together"
        )
    if parts.family == "llava":
        check_image_token(folder, parts)


def check_image_token(folder: Path, parts: VictimParts) -> None:
    """Refuses a LLaVA whose tokenizer does not know the image's token, and gives one without padding a token for it."""
    wanted = parts.model.config.image_token_id
    if parts.tokenizer.convert_tokens_to_ids(IMAGE) != wanted:
        raise BrokenModelError(
            f"the tokenizer of {folder} does not turn {IMAGE} into token {wanted}, where the model puts the image; get "
            f"the tokenizer that was published with it"
        )
    if parts.tokenizer.pad_token_id is None:
        parts.tokenizer.pad_token = parts.tokenizer.eos_token
