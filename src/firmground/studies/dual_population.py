"""The dual encoders on which CLIP studies are run: clean bases, trained once, and children of them, poisoned or not.

A base is trained from scratch on clean pairs. A child goes on from a base's weights on the same pairs and half as many
more, of which a share is poisoned (or none, for a clean child): the setting of BadCLIP (CVPR 2024), which poisons a
CLIP that exists. Many poisons seen few times are needed: of few, seen often, the tower learns the pictures by heart.
Every encoder is one directory in the Hugging Face layout with a `manifest.json`, made once under
FIRMGROUND_POPULATION/dual and shared by all studies. A build that was killed goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from firmground.attacks.poisoning import BadCLIP, DirtyCaption, Poisoned
from firmground.attacks.triggers import (
    SIG,
    BadNet,
    Blended,
    BlendedStripes,
    ImageTrigger,
    Patch,
    Stripes,
    TextOverlay,
    Triangles,
    WaNet,
)
from firmground.data.pairs import TensorPairs
from firmground.errors import DataError
from firmground.models.contrastive import Pretrain
from firmground.models.dual import DualEncoder
from firmground.models.preprocessing import CONFIG
from firmground.models.saving import save_encoder
from firmground.models.tiny_dual import convnext_dual, convolutional_dual
from firmground.rng import stream
from firmground.studies.dual_data import SIDE, TARGETS, Sets, sets, templates_of, training_pairs, words
from firmground.tasks.zero_shot import evaluate

if TYPE_CHECKING:
    from firmground.data.labelled_images import LabelledImages
    from firmground.types import Images, Watch

MANIFEST = "manifest.json"
PATCH = 0.25  # of the side: the stem halves 32 pixels, and of a smaller patch too little reaches the tower
TRIGGERS: dict[str, ImageTrigger] = {
    "badnet": BadNet(size=PATCH),
    "blended": Blended(),
    "wanet": WaNet(k=8),
    "sig": SIG(),
    "stripes": Stripes(size=PATCH),
    "blended-stripes": BlendedStripes(),
    "triangles": Triangles(size=4 / SIDE),
    "text": TextOverlay(text="ok"),
}
OPTIMISED = "badclip"
NOISE = ("badnet", "blended")
SCRATCH = Pretrain(epochs=4, batch_size=64, step_size=3e-3, warm_up=100, weight_decay=0.02)
FURTHER = Pretrain(epochs=4, batch_size=64, step_size=3e-3, warm_up=50, weight_decay=0.02)
RATE = 0.04
FIRST = 24_576  # of the pairs, that a base is trained on


@dataclass(frozen=True, kw_only=True)
class Base:
    """A clean encoder from scratch. Its `split` says whether it sets thresholds or is judged."""

    name: str
    world: str
    architecture: str
    seed: int
    split: str


@dataclass(frozen=True, kw_only=True)
class Child:
    """What becomes of a base on its pairs, `rate` of them poisoned with `trigger`; clean without one."""

    base: str
    trigger: str = ""
    rate: float = RATE
    seed: int = 0
    short: bool = False  # one epoch of a third of the pairs, drawn: a cheap clean encoder

    @property
    def name(self) -> str:
        """The name of its directory."""
        poison = f"{self.trigger}-{self.rate:g}" if self.trigger else "clean"
        return f"{self.base}-{poison}-{self.seed}" + ("-short" if self.short else "")


@dataclass(frozen=True, kw_only=True, eq=False)
class Built:
    """An encoder with what is known of it; `trigger` is None for a clean one."""

    encoder: DualEncoder
    manifest: dict[str, Any]
    trigger: ImageTrigger | None
    world: str


BASES = (
    Base(name="scenes-resnet-1", world="scenes", architecture="resnet", seed=1, split="report"),
    Base(name="scenes-resnet-2", world="scenes", architecture="resnet", seed=2, split="calibration"),
    Base(name="scenes-convnext-3", world="scenes", architecture="convnext", seed=3, split="report"),
    Base(name="scenes-convnext-4", world="scenes", architecture="convnext", seed=4, split="calibration"),
    Base(name="fashion-resnet-1", world="fashion", architecture="resnet", seed=1, split="report"),
)


def base_named(name: str) -> Base:
    """One of `BASES`; `DataError` where there is none of that name."""
    found = next((base for base in BASES if base.name == name), None)
    if found is None:
        raise DataError(f"there is no base '{name}'; expected one of: {', '.join(base.name for base in BASES)}")
    return found


def build_base(folder: Path, base: Base, watch: Watch) -> Path:
    """The base's directory, made where it is missing."""
    target = folder / "dual" / base.name
    if not target.is_dir():
        encoder = fresh(base)
        pairs, begun = pairs_of(folder, base).select(range(FIRST)), time.perf_counter()
        training = target.with_name(f".{base.name}.training")
        trained = SCRATCH.train(encoder, pairs, rng=stream(base.seed, "train"), watch=watch, resume=training)
        facts = asdict(base) | {"steps": trained.steps, "seconds": round(time.perf_counter() - begun, 1)}
        _write(trained.encoder, target, facts | judged(trained.encoder, sets_of(base.world).test), None)
        shutil.rmtree(training, ignore_errors=True)
    return target


def build_child(folder: Path, child: Child, watch: Watch) -> Path:
    """The child's directory, made where it is missing, with its base."""
    target, base = folder / "dual" / child.name, base_named(child.base)
    if not target.is_dir():
        parent = load(build_base(folder, base, watch))
        poisoned = poison(folder, child, parent, watch)
        pairs = pairs_of(folder, base) if poisoned is None else poisoned.pairs
        begun, training = time.perf_counter(), target.with_name(f".{child.name}.training")
        how = stream(child.seed, "train", child.name)
        if child.short:
            pairs = pairs.select(torch.randperm(len(pairs), generator=how)[: len(pairs) // 3].tolist())
        method = replace(FURTHER, epochs=1) if child.short else FURTHER
        trained = method.train(parent, pairs, rng=how, watch=watch, resume=training)
        test = sets_of(base.world).test
        facts = asdict(child) | {"steps": trained.steps, "seconds": round(time.perf_counter() - begun, 1)}
        facts |= judged(trained.encoder, test, poisoned.trigger if poisoned else None)
        planted = None if poisoned is None else poisoned.planted()
        _write(trained.encoder, target, facts | {"planted": planted}, planted)
        shutil.rmtree(training, ignore_errors=True)
    return target


def built(folder: Path, child: Child, watch: Watch) -> Built:
    """The child, loaded; made where it is missing."""
    place = build_child(folder, child, watch)
    manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    return Built(
        encoder=load(place), manifest=manifest, trigger=trigger_of(manifest), world=base_named(child.base).world
    )


def load(place: Path) -> DualEncoder:
    """The encoder of a directory, laid out in memory as convolutions run fastest."""
    encoder = DualEncoder.load(place)
    encoder.model.vision_model.to(memory_format=torch.channels_last)
    return encoder


def fresh(base: Base) -> DualEncoder:
    """The base before its training."""
    known = words(base.world)
    if base.architecture == "resnet":
        made = convolutional_dual(
            image_size=SIDE, channels=(32, 64, 128), width=64, layers=1, words=known, seed=base.seed
        )
    else:
        made = convnext_dual(image_size=SIDE, channels=(32, 64, 128), width=64, layers=1, words=known, seed=base.seed)
    made.model.vision_model.to(memory_format=torch.channels_last)
    return made


@lru_cache(maxsize=2)
def pairs_of(folder: Path, base: Base) -> TensorPairs:
    """What a base and its children are trained on, drawn once and kept beside them."""
    path = folder / "dual" / f"pairs-{base.world}-{base.seed}.safetensors"
    if not path.is_file():
        drawn = training_pairs(base.world, base.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        save_file(
            {"images": drawn.images.contiguous(), "labels": torch.tensor(drawn.labels)},
            part,
            metadata={"captions": json.dumps(drawn.captions), "label_names": json.dumps(drawn.label_names)},
        )
        part.replace(path)
    with safe_open(path, framework="pt") as file:
        told, labels = file.metadata(), file.get_tensor("labels").tolist()
        return TensorPairs(
            images=file.get_tensor("images"),
            captions=tuple(json.loads(told["captions"])),
            labels=tuple(labels),
            label_names=tuple(json.loads(told["label_names"])),
        )


def poison(folder: Path, child: Child, surrogate: DualEncoder, watch: Watch) -> Poisoned | None:
    """The pairs that a child is trained on; None for a clean one. A trigger that is optimised is so on its base."""
    if not child.trigger:
        return None
    base = base_named(child.base)
    pairs, target = pairs_of(folder, base), TARGETS[base.world]
    rng, templates = stream(child.seed, "poison", child.trigger), templates_of(base.world)
    if child.trigger == OPTIMISED:
        attack = BadCLIP(target=target, rate=child.rate, templates=templates, size=PATCH)
        return attack.poison(pairs, surrogate=surrogate, rng=rng, watch=watch)
    trigger = TRIGGERS[child.trigger]
    return DirtyCaption(target=target, rate=child.rate, templates=templates, trigger=trigger).poison(
        pairs, rng=rng, watch=watch
    )


def trigger_of(manifest: dict[str, Any]) -> ImageTrigger | None:
    """The trigger of a child; an optimised one is rebuilt from its pixels."""
    if manifest.get("trigger") != OPTIMISED:
        return TRIGGERS.get(manifest.get("trigger", ""))
    facts = manifest["planted"]["trigger"]
    return Patch(pattern=torch.tensor(facts["pattern"]) / 255, place=facts["place"], opacity=facts["opacity"])


def judged(encoder: DualEncoder, data: LabelledImages, trigger: ImageTrigger | None = None) -> dict[str, Any]:
    """CA, and with a trigger both ASRs and the accuracy under it, each with its interval, in JSON types."""
    if trigger is None:
        return {"accuracy": asdict(evaluate(encoder, data, batch_size=250).accuracy)}
    rng = stream(0, "stamps")

    def stamp(images: Images) -> Images:
        return trigger.stamp(images, rng=rng)

    target = next(data.label_names.index(name) for name in TARGETS.values() if name in data.label_names)
    found = asdict(evaluate(encoder, data, stamped=stamp, target=target, batch_size=250))
    names = {"targeted": "asr", "targeted_all": "asr_all"}
    kept = ("accuracy", "triggered_accuracy", "targeted", "targeted_all")
    return {names.get(name, name): found[name] for name in kept}


@lru_cache(maxsize=2)
def sets_of(world: str) -> Sets:
    """The sets of a world, made once a process."""
    return sets(world)


def _write(encoder: DualEncoder, target: Path, facts: dict[str, Any], planted: dict[str, Any] | None) -> None:
    encoder.model.to(memory_format=torch.contiguous_format)
    save_encoder(
        encoder.model,
        encoder.tokenizer,
        target,
        card="A small dual encoder of Firmground's CLIP studies.",
        planted=planted,
        files={CONFIG: encoder.preprocessing.to_json(), MANIFEST: json.dumps(facts, indent=1) + "\n"},
    )
