"""The answers that the study `hardening` judges: encoders, plain and hardened, and what images go through first."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from firmground.data.scenes import TEMPLATES
from firmground.defenses.guards.purifiers import BitDepth, Jpeg, RandomResizing, Resizing
from firmground.defenses.hardening import FARE, TeCoA
from firmground.errors import DataError
from firmground.models.dual import DualEncoder, unit
from firmground.models.embedded import embedded
from firmground.rng import stream
from firmground.studies.adaptive import straight_through
from firmground.studies.dual_data import scene_pairs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from firmground.types import Images, Watch

TRAIN, TRAIN_SEED = 8192, 7  # scenes without a label for FARE, with one for TeCoA
BRIEF: dict[str, Any] = {
    "epochs": 8, "batch_size": 64, "step_size": 3e-3, "inner_steps": 4, "inner_step_size": 2 / 255,
}  # fmt: skip
HARDENERS: dict[str, FARE | TeCoA] = {
    "fare": FARE(**BRIEF),
    "tecoa": TeCoA(**BRIEF, templates=TEMPLATES),
}
PURIFIERS: dict[str, Jpeg | BitDepth | Resizing | RandomResizing] = {
    "jpeg": Jpeg(),
    "bit-depth": BitDepth(),
    "resizing": Resizing(),
    "random-resizing": RandomResizing(),
}
SMOOTH = ("resizing", "random-resizing")  # gradients pass these as they are
GUARD, ENSEMBLE, BOTH = "patch-instability", "ensemble", "fare + random-resizing"
ANSWERS = ("none", "fare", *PURIFIERS, GUARD, ENSEMBLE, BOTH, "tecoa")
DRAWS = 3  # of a random answer, a step


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What stands between image and label: encoders whose embeddings are averaged, and what images go through first.

    `attacked` is that as an attacker differentiates it; `draws` how often a random one is drawn for one gradient.
    """

    encoders: tuple[DualEncoder, ...]
    purge: Callable[[Images], Images]
    attacked: Callable[[Images], Images]
    draws: int = 1

    def logits(self, images: Images, classes: torch.Tensor, *, attacked: bool = False) -> torch.Tensor:
        """Scaled cosines with the classes, (batch, classes)."""
        shown = (self.attacked if attacked else self.purge)(images)
        found = torch.stack([encoder.embed_images(shown) for encoder in self.encoders]).mean(dim=0)
        return self.encoders[0].logit_scale * unit(found) @ classes.T


def built(folder: Path, name: str, watch: Watch) -> Answer:
    """An answer by its name, hardened encoders made where they are missing. `DataError` for another name."""
    rng = stream(0, "purge", name)
    if name in PURIFIERS or name == BOTH:
        purifier = PURIFIERS[name if name in PURIFIERS else "random-resizing"]
        encoder = base() if name in PURIFIERS else hardened(folder, "fare", watch)

        def purge(images: Images) -> Images:
            return purifier.purge(images, rng=rng)

        random, smooth = isinstance(purifier, RandomResizing), purifier.name in SMOOTH
        attacked = purge if smooth else straight_through(purge)
        return Answer(encoders=(encoder,), purge=purge, attacked=attacked, draws=DRAWS if random else 1)
    encoders = {
        "none": lambda: (base(),),
        GUARD: lambda: (base(),),
        "fare": lambda: (hardened(folder, "fare", watch),),
        "tecoa": lambda: (hardened(folder, "tecoa", watch),),
        ENSEMBLE: lambda: (base(), hardened(folder, "fare", watch)),
    }
    if name not in encoders:
        raise DataError(f"there is no answer '{name}'; expected one of: {', '.join(ANSWERS)}")
    return Answer(encoders=encoders[name](), purge=lambda images: images, attacked=lambda images: images)


def hardened(folder: Path, name: str, watch: Watch) -> DualEncoder:
    """The embedded CLIP after a hardener, trained where it is missing."""
    target = folder / "hardened" / name
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        training = target.with_name(f".{name}.training")
        found = HARDENERS[name].harden(
            base(), scene_pairs(TRAIN, TRAIN_SEED), rng=stream(0, "harden", name), watch=watch, resume=training
        )
        facts = {"steps": found.steps, "seconds": round(found.seconds, 1), "kept": found.kept, "losses": found.losses}
        found.encoder.model.to(memory_format=torch.contiguous_format)
        found.encoder.save(target, card=found.card())
        (target / "manifest.json").write_text(json.dumps(facts | {"settings": found.settings}, indent=1) + "\n")
        shutil.rmtree(training, ignore_errors=True)
    return loaded(target)


def training_facts(folder: Path, name: str) -> dict[str, Any]:
    """What training an answer took; empty for one that needs none."""
    manifest = folder / "hardened" / name / "manifest.json"
    return json.loads(manifest.read_text()) if name in HARDENERS and manifest.is_file() else {}


@lru_cache(maxsize=1)
def base() -> DualEncoder:
    """The encoder that all is done to."""
    return loaded(embedded("clip-clean"))


def loaded(place: Path) -> DualEncoder:
    """An encoder, laid out in memory as convolutions run fastest."""
    encoder = DualEncoder.load(place)
    encoder.model.vision_model.to(memory_format=torch.channels_last)
    return encoder
