"""CLIPSeg and GroupViT: open-vocabulary segmentation by transformers' models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from firmground.data.annotated_images import BACKGROUND
from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.victims.parts import VictimParts
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipSeg:
    """Lueddecke and Ecker, "Image Segmentation Using Text and Image Prompts", CVPR 2022: a decoder on a frozen CLIP.

    Each name is one prompt; a pixel is of the surest name's class. Where "background" is among the names, pixels that
    no other name claims with a probability above `threshold` are background.
    """

    parts: VictimParts
    template: str = "a photo of a {}"
    threshold: float = 0.5

    @torch.no_grad()
    def segment(self, images: Images, names: Sequence[str]) -> torch.Tensor:
        """See `firmground.tasks.segmentation.Segmenter`."""
        shown = foreground(names)
        model, pixels = self.parts.model, self.parts.pixels(images, whole=True)
        prompts = self.parts.tokenize(
            [self.template.format(name) for name in shown], most=model.config.text_config.max_position_embeddings
        )
        meant = model.clip.get_text_features(prompts.ids, attention_mask=prompts.mask).pooler_output
        seen = model.clip.vision_model(pixel_values=pixels, output_hidden_states=True, interpolate_pos_encoding=True)
        layers = [seen.hidden_states[layer + 1] for layer in model.extract_layers]
        logits = torch.stack(
            [
                model.decoder(layers, text.expand(len(images), -1)).logits.view(len(images), *pixels.shape[-2:])
                for text in meant
            ],
            dim=1,
        )
        probability = resized(logits, images).sigmoid()
        return claimed(probability, names, self.threshold)


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupViT:
    """Xu et al., "GroupViT: Semantic Segmentation Emerges from Text Supervision", CVPR 2022.

    Groups of patches get the name that their embedding is nearest to. Where "background" is among the names, a pixel
    whose softmax over the other names stays below `threshold` (the paper's for PASCAL VOC) is background. Departs from
    the paper: the whole image is squeezed to the model's square, and one template stands for its ensemble.
    """

    parts: VictimParts
    template: str = "a photo of a {}"
    threshold: float = 0.95

    @torch.no_grad()
    def segment(self, images: Images, names: Sequence[str]) -> torch.Tensor:
        """See `firmground.tasks.segmentation.Segmenter`."""
        shown = foreground(names)
        model, pixels = self.parts.model, self.parts.pixels(images, whole=True)
        prompts = self.parts.tokenize(
            [self.template.format(name) for name in shown], most=model.config.text_config.max_position_embeddings
        )
        found = model(
            input_ids=prompts.ids, attention_mask=prompts.mask, pixel_values=pixels, output_segmentation=True
        ).segmentation_logits
        return claimed(resized(found, images).softmax(dim=1), names, self.threshold)


def foreground(names: Sequence[str]) -> list[str]:
    """The names that are asked for; `DataError` where there is none."""
    shown = [name for name in names if name != BACKGROUND]
    if not shown or any(not name.strip() for name in shown):
        raise DataError(f"segmentation needs the names of classes, got {list(names)}")
    return shown


def resized(scores: torch.Tensor, images: Images) -> torch.Tensor:
    """Scores, (batch, names, height, width), at the size of the images."""
    return F.interpolate(scores.float(), size=images.shape[-2:], mode="bilinear", align_corners=False)


def claimed(probability: torch.Tensor, names: Sequence[str], threshold: float) -> torch.Tensor:
    """Indices into `names`, (batch, height, width), from probabilities of those that are not the background."""
    places = torch.tensor([i for i, name in enumerate(names) if name != BACKGROUND], device=probability.device)
    best, chosen = probability.max(dim=1)
    found = places[chosen]
    if BACKGROUND in names:
        found = found.masked_fill(best <= threshold, list(names).index(BACKGROUND))
    return found
