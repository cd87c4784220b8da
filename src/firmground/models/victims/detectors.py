"""OWL-ViT and OWLv2: open-vocabulary detection by transformers' models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from firmground.data.annotated_images import Detections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.victims.parts import VictimParts
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True, eq=False)
class Owl:
    """Minderer et al., "Simple Open-Vocabulary Object Detection with Vision Transformers", ECCV 2022 (OWL-ViT), and
    "Scaling Open-Vocabulary Object Detection", NeurIPS 2023 (OWLv2).

    Each patch gives a box with the likeliest of the names; the `most` surest boxes of an image with a score of
    `threshold` or more are kept, without suppression, as transformers does. OWLv2 sees the image padded with black to a
    square; antialiased bilinear resizing stands for the Gaussian blur and zoom of its processor.
    """

    parts: VictimParts
    template: str = "a photo of a {}"
    threshold: float = 0.01
    most: int = 100

    @torch.no_grad()
    def detect(self, images: Images, names: Sequence[str]) -> tuple[Detections, ...]:
        """See `firmground.tasks.detection.Detector`."""
        model, family = self.parts.model, self.parts.family
        height, width = images.shape[-2:]
        padded = family == "owlv2"
        if padded:
            side = max(height, width)
            images = F.pad(images, (0, side - width, 0, side - height))
        prompts = self.parts.tokenize(
            [self.template.format(name) for name in names], most=model.config.text_config.max_position_embeddings
        )
        meant = getattr(model, family).get_text_features(prompts.ids, attention_mask=prompts.mask).pooler_output
        grid = model.image_embedder(pixel_values=self.parts.pixels(images, whole=True))[0]
        patches = grid.flatten(1, 2)
        logits = model.class_predictor(patches, meant.expand(len(images), -1, -1), None)[0]
        boxes = model.box_predictor(patches, grid)
        frame = (max(height, width),) * 2 if padded else (height, width)
        return tuple(
            self._kept(own, places, frame, (height, width))
            for own, places in zip(logits.float().cpu(), boxes.float().cpu(), strict=True)
        )

    def _kept(
        self, logits: torch.Tensor, boxes: torch.Tensor, frame: tuple[int, int], size: tuple[int, int]
    ) -> Detections:
        """Of one image: `logits` (patches, names), `boxes` (patches, 4) as centre and size, in shares of the frame."""
        highest, labels = logits.max(dim=1)
        best = highest.sigmoid()
        order = best.argsort(descending=True, stable=True)[: self.most]
        order = order[best[order] >= self.threshold]
        centre, half = boxes[order, :2], boxes[order, 2:] / 2
        corners = torch.cat([centre - half, centre + half], dim=1) * torch.tensor([*frame[::-1], *frame[::-1]])
        limits = torch.tensor([*size[::-1], *size[::-1]])
        return Detections(boxes=corners.clamp(min=0).minimum(limits), scores=best[order], labels=labels[order])
