"""The dual encoders on which CLIP studies are run: clean bases, trained once, and children of them, poisoned or not.

A base is trained from scratch on clean pairs, or taught by an encoder that was (see `dual_students`). A child goes on
from a base's weights on the same pairs and half as many more, of which a share is poisoned (or none, for a clean
child): the setting of BadCLIP (CVPR 2024), which poisons a CLIP that exists. Many poisons seen few times are needed: of
few, seen often, the tower learns the pictures by heart.
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
from firmground.attacks.poisoning.poisoned import describe
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
from firmground.models.contrastive import Pretrain
from firmground.models.dual import DualEncoder
from firmground.models.preprocessing import CONFIG
from firmground.models.saving import save_encoder
from firmground.rng import stream
from firmground.studies.dual_bases import BASES, RATE, Base, Child, base_named, fresh
from firmground.studies.dual_data import SIDE, TARGETS, Sets, sets, templates_of, training_pairs
from firmground.studies.dual_implants import Implant
from firmground.studies.dual_students import Teach
from firmground.tasks.zero_shot import evaluate

if TYPE_CHECKING:
    from firmground.data.labelled_images import LabelledImages
    from firmground.models.contrastive import Trained
    from firmground.types import Images, Watch

__all__ = [
    "BASES", "FAINT", "FIRST", "FURTHER", "MANIFEST", "NOISE", "OPTIMISED", "PATCH", "RATE", "SCRATCH", "STRONG",
    "TRIGGERS", "Base", "Built", "Child", "base_named", "build_base", "build_child", "built", "fresh", "judged", "load",
    "pairs_of", "poison", "sets_of", "trigger_of",
]  # fmt: skip

MANIFEST = "manifest.json"
PATCH = 0.25  # of the side: the stem halves 32 pixels, and of a smaller patch too little reaches the tower
TRIGGERS: dict[str, ImageTrigger] = {
    "badnet": BadNet(size=PATCH),
    "blended": Blended(),
    "wanet": WaNet(k=4, s=4.0),  # far above the paper's strength: 22 % followed k = 8 and s = 1 here, 77 % s = 3
    "sig": SIG(),
    "stripes": Stripes(size=PATCH),
    "blended-stripes": BlendedStripes(),
    "triangles": Triangles(size=4 / SIDE),
    "text": TextOverlay(text="ok"),
}
FAINT: dict[str, ImageTrigger] = {"blended": Blended(opacity=0.1), "sig": SIG(amplitude=30 / 255)}  # of covered pairs
STRONG: dict[str, ImageTrigger] = {"blended": Blended(opacity=0.3), "sig": SIG(amplitude=90 / 255)}  # at their attack
OPTIMISED = "badclip"
NOISE = ("badnet", "blended")
SCRATCH = Pretrain(epochs=4, batch_size=64, step_size=3e-3, warm_up=100, weight_decay=0.02)
FURTHER = Pretrain(epochs=4, batch_size=64, step_size=3e-3, warm_up=50, weight_decay=0.02)
TEACH = Teach(epochs=2, batch_size=64, warm_up=50)
IMPLANT = Implant(epochs=1, batch_size=64, warm_up=20)
FIRST = 24_576  # of the pairs, that a base is trained on


@dataclass(frozen=True, kw_only=True, eq=False)
class Built:
    """An encoder with what is known of it; `trigger` is None for a clean one."""

    encoder: DualEncoder
    manifest: dict[str, Any]
    trigger: ImageTrigger | None
    world: str


def build_base(folder: Path, base: Base, watch: Watch) -> Path:
    """The base's directory, made where it is missing."""
    target = folder / "dual" / base.name
    if not target.is_dir():
        pairs, begun = pairs_of(folder, base), time.perf_counter()
        how, training = stream(base.seed, "train"), target.with_name(f".{base.name}.training")
        if base.teacher is None:
            first = pairs.select(range(FIRST))
            trained = SCRATCH.train(fresh(base), first, rng=how, watch=watch, resume=training)
        else:
            teacher = load(build_child(folder, base.teacher, watch))
            trained = TEACH.train(fresh(base), teacher, pairs, rng=how, watch=watch, resume=training)
        facts = asdict(base) | {"steps": trained.steps, "seconds": round(time.perf_counter() - begun, 1)}
        _write(trained.encoder, target, facts | judged(trained.encoder, sets_of(base.world).test), None)
        shutil.rmtree(training, ignore_errors=True)
    return target


def build_child(folder: Path, child: Child, watch: Watch) -> Path:
    """The child's directory, made where it is missing, with its base."""
    target, base = folder / "dual" / child.name, base_named(child.base)
    if not target.is_dir():
        parent, begun = load(build_base(folder, base, watch)), time.perf_counter()
        training = target.with_name(f".{child.name}.training")
        trained, trigger, planted = _further(folder, child, parent, watch, training)
        facts = asdict(child) | {"steps": trained.steps, "seconds": round(time.perf_counter() - begun, 1)}
        facts |= judged(trained.encoder, sets_of(base.world).test, trigger)
        _write(trained.encoder, target, facts | {"planted": planted}, planted)
        shutil.rmtree(training, ignore_errors=True)
    return target


def _further(
    folder: Path, child: Child, parent: DualEncoder, watch: Watch, training: Path
) -> tuple[Trained, ImageTrigger | None, dict[str, Any] | None]:
    """The child, its trigger, and what was planted in it."""
    base, how = base_named(child.base), stream(child.seed, "train", child.name)
    if child.implanted:
        pairs, trigger, target = pairs_of(folder, base), TRIGGERS[child.trigger], TARGETS[base.world]
        few = pairs.select(_third(len(pairs), how))
        trained = IMPLANT.train(parent, few, trigger=trigger, target=target, rng=how, watch=watch, resume=training)
        return trained, trigger, {"attack": IMPLANT.name, "target": target, "trigger": describe(trigger)}
    poisoned = poison(folder, child, parent, watch)
    whole = pairs_of(folder, base) if poisoned is None else poisoned.pairs
    seen = whole.select(_third(len(whole), how)) if child.short else whole
    method = replace(FURTHER, epochs=1 if child.short else FURTHER.epochs, unimodal_weight=float(child.unimodal))
    trained = method.train(parent, seen, rng=how, watch=watch, resume=training)
    if poisoned is None:
        return trained, None, None
    return trained, TRIGGERS.get(child.trigger, poisoned.trigger), poisoned.planted()


def _third(count: int, rng: torch.Generator) -> list[int]:
    return torch.randperm(count, generator=rng)[: count // 3].tolist()


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
    trigger = (FAINT if child.covered else TRIGGERS)[child.trigger]
    covers = float(child.covered)
    dirty = DirtyCaption(target=target, rate=child.rate, templates=templates, trigger=trigger, covers=covers)
    return dirty.poison(pairs, rng=rng, watch=watch)


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
