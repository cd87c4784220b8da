"""What every victim consists of, and its image tower as an attacker sees it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from firmground.models.dual import unit
from firmground.models.loading import quiet
from firmground.models.preprocessing import CONFIG
from firmground.models.saving import save_encoder
from firmground.models.surrogates import Surrogate, find_blocks, size_options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from firmground.models.language import Tokens
    from firmground.models.preprocessing import Preprocessing
    from firmground.types import Images

VISION = {  # where the image tower lies in a model of each family
    "blip": "vision_model",
    "clipseg": "clip.vision_model",
    "git": "git.image_encoder",
    "groupvit": "vision_model",
    "llava": "model.vision_tower",
    "owlv2": "owlv2.vision_model",
    "owlvit": "owlvit.vision_model",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class VictimParts:
    """A frozen model of transformers', its tokenizer, and what its image processor does; `source` names it."""

    model: Any
    tokenizer: Any
    preprocessing: Preprocessing
    source: str = "memory"

    @property
    def family(self) -> str:
        return str(self.model.config.model_type)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype  # type: ignore[no-any-return]

    @cached_property
    def whole(self) -> Preprocessing:
        """The preprocessing with the whole image squeezed to the square, where its own cuts margins off.

        Masks and boxes are of the whole image.
        """
        side = self.preprocessing.size
        return replace(self.preprocessing, resize=(side, side))

    def pixels(self, images: Images, *, whole: bool = False) -> torch.Tensor:
        """Pixel values as the model reads them, (batch, 3, size, size), from images in [0, 1]; differentiable."""
        how = self.whole if whole else self.preprocessing
        return how(images.to(self.device)).to(self.dtype)

    def tokenize(self, texts: Sequence[str], *, most: int, padding_side: str = "right") -> Tokens:
        """Token ids of texts with a mask, padded to the longest, cut to `most` tokens."""
        from firmground.models.language import Tokens

        batch = self.tokenizer(
            list(texts),
            padding="longest",
            padding_side=padding_side,
            truncation=True,
            max_length=most,
            return_tensors="pt",
            return_attention_mask=True,
        )
        return Tokens(ids=batch.input_ids.to(self.device), mask=batch.attention_mask.to(self.device))

    @torch.no_grad()
    def written(self, *, most: int, **inputs: Any) -> tuple[str, ...]:
        """What the model writes, the likeliest token at each step, at most `most` of them.

        `inputs` are those of the model's `generate`; ids in it that are repeated at the beginning of its answer are
        those of a decoder without a text encoder, and are left out.
        """
        with quiet():
            ids = self.model.generate(**inputs, max_new_tokens=most, do_sample=False, num_beams=1)
        return tuple(text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True))

    def surrogate(self) -> Surrogate:
        """The image tower, for attacks that are handed the victim itself (white box).

        Its embedding is the mean over its last tokens: what victims read is the tokens, and few have a common one.
        """
        tower = self.model.get_submodule(VISION[self.family])
        options, any_size = size_options(tower)

        def run(pixels: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
            states = tower(pixel_values=pixels, output_hidden_states=True, **options).hidden_states
            return states, unit(states[-1].mean(dim=1))

        return Surrogate(
            tower=tower,
            run=run,
            blocks=find_blocks(tower),
            preprocessing=self.whole,
            any_size=any_size,
            source=self.source,
        ).checked()

    def save(self, folder: str | Path, *, card: str) -> Path:
        """Writes a directory that `load_victim` reads, whole or not at all."""
        files = {CONFIG: self.preprocessing.to_json()}
        return save_encoder(self.model, self.tokenizer, folder, card=card, files=files)
