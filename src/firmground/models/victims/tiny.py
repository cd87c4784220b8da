"""Each supported victim, built small from a config of its real class, with random weights: to try code on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch

from firmground.models.loading import quiet
from firmground.models.preprocessing import Preprocessing
from firmground.models.tiny_tokenizers import tiny_wordpiece
from firmground.models.victims.loading import ADAPTERS
from firmground.models.victims.parts import VictimParts
from firmground.models.victims.writers import IMAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.victims.loading import Victim

Kind: TypeAlias = Literal["clipseg", "groupvit", "owlvit", "owlv2", "blip-captioning", "blip-vqa", "git", "llava"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WIDTH, SIDE, PATCH, POSITIONS = 32, 32, 8, 32


def tiny_victim(kind: Kind, *, words: Sequence[str] = (), seed: int = 0) -> Victim:
    """A victim of width 32 for images of 32 pixels; `words` are one token each beside those of tiny tokenizers."""
    tokenizer = tiny_wordpiece(words)
    if kind == "llava":
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    tokenizer.model_max_length = POSITIONS
    name, config = described(kind, tokenizer)
    import transformers

    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, name)(config).eval().requires_grad_(False)
    parts = VictimParts(
        model=model,
        tokenizer=tokenizer,
        preprocessing=Preprocessing(size=SIDE, resize=(SIDE, SIDE), filter="bilinear"),
        source=f"tiny {kind} {seed}",
    )
    victim: Victim = ADAPTERS[name](parts=parts)
    return victim


def described(kind: Kind, tokenizer: Any) -> tuple[str, Any]:
    """The class of a kind and its small config."""
    import transformers as hf

    tower: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    vision: dict[str, Any] = tower | {"image_size": SIDE, "patch_size": PATCH}
    text: dict[str, Any] = tower | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": POSITIONS,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    pair: dict[str, Any] = {"text_config": text, "vision_config": vision, "projection_dim": WIDTH}
    match kind:
        case "clipseg":
            more: dict[str, Any] = {"extract_layers": [0, 1], "reduce_dim": 16, "decoder_intermediate_size": 32}
            return "CLIPSegForImageSegmentation", hf.CLIPSegConfig(**pair, **more)
        case "groupvit":
            groups: dict[str, Any] = {"depths": [1, 1], "num_group_tokens": [4, 0], "num_output_groups": [4, 4]}
            grouped: dict[str, Any] = pair | {"vision_config": vision | groups, "projection_intermediate_dim": WIDTH}
            return "GroupViTModel", hf.GroupViTConfig(**grouped)
        case "owlvit":
            return "OwlViTForObjectDetection", hf.OwlViTConfig(**pair)
        case "owlv2":
            return "Owlv2ForObjectDetection", hf.Owlv2Config(**pair)
        case "blip-captioning" | "blip-vqa":
            ends = {"sep_token_id": tokenizer.sep_token_id}
            blip: dict[str, Any] = pair | {
                "text_config": text | ends,
                "vision_config": vision | {"initializer_range": 0.02},
            }
            name = "BlipForConditionalGeneration" if kind == "blip-captioning" else "BlipForQuestionAnswering"
            return name, hf.BlipConfig(**blip)
        case "git":
            return "GitForCausalLM", hf.GitConfig(vision_config=vision, **text)
    llama: dict[str, Any] = {key: value for key, value in text.items() if key != "max_position_embeddings"}
    return "LlavaForConditionalGeneration", hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**vision),
        text_config=hf.LlamaConfig(**llama, max_position_embeddings=512),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(SIDE // PATCH) ** 2,
    )
