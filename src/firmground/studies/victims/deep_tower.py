"""A CLIP of another architecture than the package's, for victims only: a ResNet twice as deep and narrower.

It is pretrained as the bases of `dual_population`, on the pairs of the base whose seed it shares.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from firmground.models.preprocessing import CONFIG
from firmground.models.saving import save_encoder
from firmground.models.tiny_dual import build_dual, caption_tokenizer, text_tower
from firmground.rng import stream
from firmground.studies.dual_data import SIDE, words
from firmground.studies.dual_population import FIRST, MANIFEST, SCRATCH, Base, judged, load, pairs_of, sets_of

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.models.dual import DualEncoder
    from firmground.types import Watch

DEEP = Base(name="scenes-deep-3", world="scenes", architecture="deep resnet", seed=3, split="report")
CHANNELS, DEPTHS, WIDTH = (24, 48, 96), (2, 2, 2), 64


def deep_tower(folder: Path, watch: Watch) -> DualEncoder:
    """The encoder, trained where it is missing; a training that was killed goes on."""
    target = folder / "dual" / DEEP.name
    if not target.is_dir():
        training, begun = target.with_name(f".{DEEP.name}.training"), time.perf_counter()
        pairs, rng = pairs_of(folder, DEEP).select(range(FIRST)), stream(DEEP.seed, "train", DEEP.name)
        trained = SCRATCH.train(fresh(), pairs, rng=rng, watch=watch, resume=training)
        facts = asdict(DEEP) | {"steps": trained.steps, "seconds": round(time.perf_counter() - begun, 1)}
        encoder, files = trained.encoder, facts | judged(trained.encoder, sets_of(DEEP.world).test)
        encoder.model.to(memory_format=torch.contiguous_format)
        save_encoder(
            encoder.model,
            encoder.tokenizer,
            target,
            card="A small dual encoder on which victims of Firmground's study `transfer` are built.",
            files={CONFIG: encoder.preprocessing.to_json(), MANIFEST: json.dumps(files, indent=1) + "\n"},
        )
        shutil.rmtree(training, ignore_errors=True)
    return load(target)


def fresh() -> DualEncoder:
    """The encoder before its training."""
    from transformers import CLIPTextConfig, ResNetConfig, VisionTextDualEncoderConfig, VisionTextDualEncoderModel

    tokenizer = caption_tokenizer(words(DEEP.world))
    vision = ResNetConfig(
        embedding_size=CHANNELS[0], hidden_sizes=list(CHANNELS), depths=list(DEPTHS), layer_type="basic"
    )
    vision.hidden_size = CHANNELS[-1]
    text = CLIPTextConfig(**text_tower(tokenizer, WIDTH, 1))
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=WIDTH)
    made = build_dual(lambda: VisionTextDualEncoderModel(config), tokenizer, SIDE, DEEP.name, DEEP.seed)
    made.model.vision_model.to(memory_format=torch.channels_last)
    return made
