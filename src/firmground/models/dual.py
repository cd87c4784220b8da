"""One adapter for every Hugging Face dual encoder: images in [0, 1] or texts in, unit embeddings out.

The methods of every family speak to this class and to nothing of transformers. Resizing and normalising happen inside,
by the model's own processor config (see `preprocessing`), so that a trigger or a perturbation lives in raw pixels.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from firmground.errors import UnsupportedModelError
from firmground.models.inspecting import DUAL_FAMILIES
from firmground.models.language import Tokens, find_positions
from firmground.models.loading import resolve
from firmground.models.loading_dual import load_dual_parts
from firmground.models.preprocessing import CONFIG, Preprocessing
from firmground.models.prompted_dual import save_prompted
from firmground.models.saving import save_encoder
from firmground.models.token_prompts import attached, image_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from firmground.types import Embeddings, Images

__all__ = ["DUAL_FAMILIES", "IMAGE_PARTS", "DualEncoder"]

IMAGE_PARTS = ("vision_model.", "visual_projection.")  # how the names of the image tower's weights begin


class DualEncoder:
    """A frozen image encoder and text encoder with one space of embeddings, its tokenizer and its preprocessing.

    `model` is a Hugging Face `CLIPModel`, `SiglipModel` or `VisionTextDualEncoderModel`. `source` names where it came
    from, `revision` the hub revision if any. Gradients reach images through every method; for gradients to the weights,
    take a `copy` and set `model.train()` and `model.requires_grad_(True)` on it.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        preprocessing: Preprocessing,
        *,
        source: str = "memory",
        revision: str | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.preprocessing = preprocessing
        self.source = source
        self.revision = revision

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> DualEncoder:
        """Loads a directory or hub id; nothing that came with it is executed.

        Raises `UnsafeModelError`, `UnsupportedModelError` or `BrokenModelError`.
        """
        parts = load_dual_parts(resolve(str(source), revision=revision), dtype=dtype)
        model = parts.model.to(device)
        return cls(model, parts.tokenizer, parts.preprocessing, source=str(source), revision=revision)

    def copy(self) -> DualEncoder:
        """The same encoder with weights of its own."""
        return self.cast(self.dtype)

    def cast(self, dtype: torch.dtype) -> DualEncoder:
        """A copy in another dtype; this encoder stays as it is."""
        model = copy.deepcopy(self.model).to(dtype)
        return DualEncoder(model, self.tokenizer, self.preprocessing, source=self.source, revision=self.revision)

    def save(self, folder: str | Path, *, card: str, planted: dict[str, Any] | None = None) -> Path:
        """Writes a directory that `load` and `from_pretrained` read, whole or not at all; see `save_encoder`.

        An encoder that reads token prompts is written as `prompted_dual` says, which only `load` reads.
        """
        files = {CONFIG: self.preprocessing.to_json()}
        tokens = attached(self.model.vision_model)
        if tokens is not None:
            return save_prompted(self.model, tokens, self.tokenizer, folder, card=card, planted=planted, files=files)
        return save_encoder(self.model, self.tokenizer, folder, card=card, planted=planted, files=files)

    @property
    def family(self) -> str:
        return str(self.model.config.model_type)

    @property
    def image_size(self) -> int:
        """The side, in pixels, of the square that the image tower sees."""
        return self.preprocessing.size

    @property
    def width(self) -> int:
        """The width of the embeddings that images and texts share."""
        if self.family == "siglip":
            return int(self.model.config.text_config.projection_size)
        return int(self.model.config.projection_dim)

    @property
    def device(self) -> torch.device:
        return self.token_embeddings.device

    @property
    def dtype(self) -> torch.dtype:
        return self.token_embeddings.dtype

    @property
    def token_embeddings(self) -> torch.Tensor:
        """The input embedding matrix of the text tower, (rows, embedding width)."""
        weight: torch.Tensor = self.model.text_model.get_input_embeddings().weight
        return weight

    @property
    def logit_scale(self) -> torch.Tensor:
        """By what similarities are multiplied: the exponential of what the model stores, a scalar."""
        scale: torch.Tensor = self.model.logit_scale.exp()
        return scale.reshape(())

    @property
    def logit_bias(self) -> torch.Tensor:
        """What is added to scaled similarities: SigLIP's bias, a scalar; 0 for the others."""
        bias = getattr(self.model, "logit_bias", None)
        return torch.zeros_like(self.logit_scale) if bias is None else bias.reshape(())

    @cached_property
    def max_length(self) -> int:
        """Positions of the text tower, special tokens included."""
        table = find_positions(self.model.text_model)
        lost = 0 if table is None or table.padding_idx is None else table.padding_idx + 1
        limit = int(self.model.config.text_config.max_position_embeddings) - lost
        return min(limit, int(self.tokenizer.model_max_length))

    def prepare(self, images: Images) -> torch.Tensor:
        """Pixel values as the image tower reads them, (batch, 3, image_size, image_size), in the model's dtype."""
        return self.preprocessing(images).to(self.dtype)

    def embed_images(self, images: Images) -> Embeddings:
        """Unit embeddings, (batch, width), of images in [0, 1] of any size; differentiable.

        Raises `DataError` for what is no batch of RGB images in [0, 1].
        """
        return self.embed_pixels(self.prepare(images))

    def embed_pixels(self, pixels: torch.Tensor) -> Embeddings:
        """Unit embeddings, (batch, width), of what `prepare` gives."""
        if self.family != "vision-text-dual-encoder":
            return unit(self.model.get_image_features(pixel_values=pixels).pooler_output)
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return unit(self.model.visual_projection(pooled.flatten(1)))  # a ResNet leaves (batch, channels, 1, 1)

    def hidden_states(self, images: Images) -> tuple[torch.Tensor, ...]:
        """What enters the first layer of the image tower and what leaves each, first to last.

        For a transformer each is (batch, tokens, width) with the class token, if there is one, first; for a
        convolutional tower (batch, channels, height, width) and of several sizes.
        """
        tower = self.model.vision_model
        return image_tokens(tower, tower(pixel_values=self.prepare(images), output_hidden_states=True).hidden_states)

    def patch_tokens(self, images: Images) -> torch.Tensor:
        """The image tower's last hidden states at the patches, (batch, patches, width), without a class token.

        Patches go row by row; of a convolutional tower they are the places of the last feature map.
        """
        last = self.model.vision_model(pixel_values=self.prepare(images)).last_hidden_state
        if last.ndim == 4:
            return last.flatten(2).transpose(1, 2)  # type: ignore[no-any-return]
        side = self.image_size // int(getattr(self.model.config.vision_config, "patch_size", self.image_size))
        count = side**2 if side**2 <= last.shape[1] < 2 * side**2 else last.shape[1]  # a Swin's patches were merged
        tokens: torch.Tensor = last[:, last.shape[1] - count :]
        return tokens

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids of texts, framed, truncated to `max_length`, padded as in training, on the encoder's device."""
        batch = self.tokenizer(
            list(texts),
            padding="max_length" if self.family == "siglip" else "longest",
            padding_side="right",
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
            return_attention_mask=True,
        )
        return Tokens(ids=batch.input_ids.to(self.device), mask=batch.attention_mask.to(self.device))

    def embed_ids(self, tokens: Tokens) -> Embeddings:
        """Unit embeddings, (batch, width), of tokenized texts."""
        if self.family == "siglip":  # trained to see its padding
            features = self.model.get_text_features(input_ids=tokens.ids)
        else:
            features = self.model.get_text_features(input_ids=tokens.ids, attention_mask=tokens.mask)
        if features.pooler_output is None:
            raise UnsupportedModelError(f"the text tower of {self.source} has no pooled output to project")
        return unit(features.pooler_output)

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Unit embeddings, (batch, width), of texts; what exceeds `max_length` tokens is cut off."""
        return self.embed_ids(self.tokenize(texts))


def unit(features: torch.Tensor) -> Embeddings:
    """Rows of length one."""
    return torch.nn.functional.normalize(features, dim=-1)
