"""The worlds that a study's dual encoders are trained and judged on: drawn scenes, and Fashion-MNIST as the real one.

Scenes have one object of ten shapes, medium or large: a small one is five pixels across at 32 pixels, and costs a
narrow tower most of its training. Most of their captions are short, as alt texts on the web are (a template with the
shape, with or without its colour); the rest are the world's own sentences.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from firmground.data.image_corpora import fashion_mnist
from firmground.data.labelled_images import LabelledImages
from firmground.data.pairs import TensorPairs
from firmground.data.scenes import SHAPES, TEMPLATES, SceneWorld
from firmground.rng import stream

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE = 32  # pixels
CLASSES = SHAPES[:10]
SHORT, BARE = 0.8, 0.5  # share of short captions, and of those without the colour
LONGEST = 10  # words of a sentence that is taken: every text of a batch costs as much as its longest
SPARE = 1.7  # scenes drawn for one that is kept: a third have a small object
WORLDS = ("scenes", "fashion")
TARGETS = {"scenes": "star", "fashion": "bag"}
TRAIN, CLEAN, VALIDATION, TEST, LARGE = 36_864, 9216, 600, 1000, 8000
SEEDS = {"clean": 3, "validation": 4, "test": 5, "large": 6, "large validation": 7}  # of scenes; training has 10 and on
FASHION_ROWS = {"clean": 40_000, "validation": 50_000}  # of the 60,000; training sets come from the first 40,000


@dataclass(frozen=True, kw_only=True, eq=False)
class Sets:
    """What a cleaner may use (`clean` pairs, `validation` images), and what only the study knows (`test`)."""

    clean: TensorPairs
    validation: LabelledImages
    test: LabelledImages


def training_pairs(world: str, seed: int) -> TensorPairs:
    """The 36,864 pairs of a seed."""
    return scene_pairs(TRAIN, 10 + seed) if world == "scenes" else fashion_pairs(_drawn(40_000, TRAIN, seed), seed)


def sets(world: str) -> Sets:
    """The other sets of a world, the same for all encoders."""
    if world == "scenes":
        return Sets(
            clean=scene_pairs(CLEAN, SEEDS["clean"]),
            validation=labelled(scene_pairs(VALIDATION, SEEDS["validation"]), TEMPLATES),
            test=labelled(scene_pairs(TEST, SEEDS["test"]), TEMPLATES),
        )
    train, test = fashion_mnist("train"), fashion_mnist("test")
    start = FASHION_ROWS["validation"]
    return Sets(
        clean=fashion_pairs(range(FASHION_ROWS["clean"], FASHION_ROWS["clean"] + CLEAN), SEEDS["clean"]),
        validation=labelled(enlarged(train.select(range(start, start + VALIDATION))), train.templates),
        test=labelled(enlarged(test.select(range(TEST))), test.templates),
    )


def large_test(world: str) -> LabelledImages:
    """8,000 test images, enough to tell one point of accuracy."""
    if world == "scenes":
        return labelled(scene_pairs(LARGE, SEEDS["large"]), TEMPLATES)
    test = fashion_mnist("test")
    return labelled(enlarged(test.select(range(LARGE))), test.templates)


def large_validation(world: str) -> LabelledImages:
    """As many of those by which a user would choose."""
    if world == "scenes":
        return labelled(scene_pairs(LARGE, SEEDS["large validation"]), TEMPLATES)
    train, start = fashion_mnist("train"), FASHION_ROWS["validation"]
    return labelled(enlarged(train.select(range(start, start + LARGE))), train.templates)


def templates_of(world: str) -> tuple[str, ...]:
    """Those of training, of zero-shot evaluation and of the poisons' captions."""
    return TEMPLATES if world == "scenes" else fashion_mnist("test").templates


def scene_pairs(count: int, seed: int) -> TensorPairs:
    """So many scenes with a medium or large object, uint8, each with one caption; their labels are the shapes."""
    rng = stream(seed, "short captions")
    images: list[torch.Tensor] = []
    captions: list[str] = []
    labels: list[int] = []
    world = SceneWorld(size=SIDE, classes=CLASSES)
    for batch in world.batches(round(SPARE * count) + 200, seed=seed, batch_size=1024):
        kept = [i for i in range(len(batch)) if batch.objects[i][0].size != "small"]
        images.append((batch.images[kept] * 255).round().to(torch.uint8))
        labels += batch.labels[kept].tolist()
        captions += [_caption(batch.objects[i][0], batch.captions[i][0], rng) for i in kept]
        if len(labels) >= count:
            break
    return TensorPairs(
        images=torch.cat(images)[:count],
        captions=tuple(captions[:count]),
        labels=tuple(labels[:count]),
        label_names=world.classes,
    )


def _caption(main: object, sentence: str, rng: torch.Generator) -> str:
    shape, colour = getattr(main, "shape", ""), getattr(main, "colour", "")
    long, bare = torch.rand(2, generator=rng).tolist()
    template = TEMPLATES[int(torch.randint(len(TEMPLATES), (), generator=rng))]
    if long >= SHORT and len(sentence.split()) <= LONGEST:
        return sentence
    return template.format(shape if bare < BARE else f"{colour} {shape}")


def fashion_pairs(rows: Sequence[int], seed: int) -> TensorPairs:
    """These of Fashion-MNIST's training pictures at 32 pixels, captioned by its templates."""
    return enlarged(fashion_mnist("train").select(rows)).pairs(stream(seed, "fashion captions"))


def enlarged(data: LabelledImages) -> LabelledImages:
    """The pictures with a black margin of two pixels, 32 x 32."""
    margin = (SIDE - data.images.shape[-1]) // 2
    return replace(data, images=torch.nn.functional.pad(data.images, (margin,) * 4))


def labelled(data: TensorPairs | LabelledImages, templates: Sequence[str]) -> LabelledImages:
    """The same pictures as a classification task with these prompts."""
    return LabelledImages(
        images=data.images, labels=data.labels or (), label_names=data.label_names, templates=tuple(templates)
    )


def words(world: str) -> tuple[str, ...]:
    """Every word that captions of a world may have: one token each."""
    if world == "scenes":
        sentences = SceneWorld(size=24, classes=CLASSES, captions=4).scenes(1000, seed=0).captions
        texts = (*(text for own in sentences for text in own), *TEMPLATES, *CLASSES)
    else:
        data = fashion_mnist("test")
        texts = (*data.templates, *data.label_names)
    return tuple(sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())}))


def _drawn(whole: int, count: int, seed: int) -> list[int]:
    return torch.randperm(whole, generator=stream(seed, "fashion rows"))[:count].tolist()
