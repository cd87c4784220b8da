"""The study `transfer_cost`: what PRM costs beside the passes that it needs, and beside a plain loop over images.

All is measured in one process, in processor time. The bare passes are as many forward and backward passes of the same
batch through the same tower, with a gradient at every layer, and one forward pass of the clean images: nothing can be
had for less. The plain loop takes one image at a time, with torch's own AdamW and cosine. Memory is measured while
images are read from files, perturbed batch by batch and written, for some images and for ten times as many.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from firmground.attacks.evasion import PRM
from firmground.data.encoding import png
from firmground.data.image_files import find_images
from firmground.data.scenes import SceneWorld
from firmground.errors import DataError
from firmground.models.dual import DualEncoder
from firmground.models.embedded import embedded
from firmground.models.surrogates import Surrogate
from firmground.models.tiny_dual import tiny_clip
from firmground.rng import stream
from firmground.studies.memory import PeakMemory
from firmground.studies.runner import Study
from firmground.studies.tables import Column, Report, markdown_table, tidy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firmground.studies.runner import Record
    from firmground.types import Images, Watch

SIDE, BATCH, ALONE, STEPS = 64, 16, 2, 40
FILES = 32  # images of the smaller set whose memory is measured
RUNS = 3
SHORT = 2  # steps where only memory is measured
EPSILON = 8 / 255
COLUMNS = (
    Column(key="images_per_second", title="PRM, images/s", kind="mean", digits=2),
    Column(key="bare_images_per_second", title="bare passes, images/s", kind="mean", digits=2),
    Column(key="prm_over_bare_passes", title="PRM over bare passes, time", kind="mean", digits=3),
    Column(key="plain_images_per_second", title="plain loop, images/s", kind="mean", digits=2),
    Column(key="plain_loop_over_prm", title="plain loop over PRM, time", kind="mean", digits=2),
    Column(key="peak_mb", title=f"peak MiB, {FILES} images", kind="mean", digits=0),
    Column(key="peak_10x_mb", title=f"peak MiB, {10 * FILES} images", kind="mean", digits=0),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A tower, one of `TOWERS`; repeated under other seeds."""

    tower: str
    seed: int = 0


def _vit() -> DualEncoder:
    return tiny_clip(image_size=SIDE, patch_size=8, width=192, layers=4)


TOWERS: dict[str, Callable[[], DualEncoder]] = {
    "resnet, embedded": lambda: DualEncoder.load(embedded("clip-clean")),
    "ViT, width 192, 4 layers": _vit,
}


def run_case(case: Case, watch: Watch) -> dict[str, Any]:
    """Times three ways to make the same images, each after a short warm-up, and measures memory."""
    encoder = TOWERS[case.tower]()
    clean = (SceneWorld(size=SIDE).scenes(BATCH, seed=case.seed).images * 255).round() / 255
    surrogate, method = Surrogate.of(encoder), PRM(steps=STEPS, batch_size=BATCH)

    def attack(images: Images) -> None:
        method.perturb(surrogate, images, rng=stream(case.seed, "cost"), watch=watch)

    ways: tuple[tuple[Callable[[], object], int], ...] = (
        (lambda: attack(clean), BATCH),
        (lambda: bare_passes(surrogate, clean, STEPS), BATCH),
        (lambda: plain_loop(surrogate, clean[:ALONE], STEPS), ALONE),
    )
    prm, bare, plain = (found / count for found, (_, count) in zip(seconds(ways), ways, strict=True))
    small, large = (peak(surrogate, count, case.seed, watch) for count in (FILES, 10 * FILES))
    return {
        "images_per_second": 1 / prm,
        "bare_images_per_second": 1 / bare,
        "plain_images_per_second": 1 / plain,
        "prm_over_bare_passes": prm / bare,
        "plain_loop_over_prm": plain / prm,
        "peak_mb": small,
        "peak_10x_mb": large,
        "peak_memory_ratio_10x_images": large / small,
        "threads": torch.get_num_threads(),
    }


def seconds(ways: Sequence[tuple[Callable[[], object], int]]) -> list[float]:
    """Processor seconds of each way, the least of `RUNS` runs in turn: a busy machine shall not decide a ratio."""
    found: list[list[float]] = [[] for _ in ways]
    for _ in range(RUNS):
        for times, (work, _) in zip(found, ways, strict=True):
            begun = time.process_time()
            work()
            times.append(time.process_time() - begun)
    return [min(times) for times in found]


def bare_passes(surrogate: Surrogate, clean: Images, steps: int) -> None:
    """The forward and backward passes that PRM cannot do without, and nothing else."""
    pixels = surrogate.pixels(clean)
    with torch.no_grad():
        surrogate.run(pixels)
    for _ in range(steps):
        leaf = pixels.detach().clone().requires_grad_()
        layers = surrogate.run(leaf)[0]
        torch.autograd.grad(list(layers), [leaf], grad_outputs=[torch.ones_like(layer) for layer in layers])


def plain_loop(surrogate: Surrogate, clean: Images, steps: int) -> list[Images]:
    """PRM as one would write it down: image by image, torch's AdamW, torch's cosine, layer by layer."""
    made = []
    for image in clean.split(1):
        with torch.no_grad():
            held = surrogate.features(image).layers
        delta = ((2 * torch.rand(image.shape, generator=stream(0, "plain")) - 1) * EPSILON).requires_grad_()
        optimizer = torch.optim.AdamW([delta], lr=0.5 / 255)
        for _ in range(steps):
            layers = surrogate.features(image + delta).layers
            loss = torch.stack(
                [F.cosine_similarity(now, then, dim=-1).mean() for now, then in zip(layers, held, strict=True)]
            ).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            delta.data = (image + delta.data.clamp(-EPSILON, EPSILON)).clamp(0, 1) - image
        made.append(((image + delta.detach()) * 255).round() / 255)
    return made


def peak(surrogate: Surrogate, count: int, seed: int, watch: Watch) -> float:
    """The largest memory of the process, MiB, while so many images go from files through PRM into files."""
    method = PRM(steps=SHORT, batch_size=BATCH)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for start in range(0, count, FILES):
            drawn = SceneWorld(size=SIDE).scenes(FILES, seed=seed + start).images
            for i, image in enumerate(drawn):
                (folder / f"{start + i:05d}.png").write_bytes(png(image))
        found = find_images(folder)
        with PeakMemory() as memory:
            for files in found.batches(BATCH):
                made = method.perturb(surrogate, found.read(files).images, rng=stream(seed, "memory"), watch=watch)
                for file, image in zip(files, made.images, strict=True):
                    (folder / f"{file.name}.out").write_bytes(png(image))
    return memory.peak_mb


def report_cost(records: Sequence[Record]) -> Report:
    """Ratios by tower; the summary takes the means over all runs."""
    rows = tidy(record for record in records if record.study == "transfer_cost")
    if not rows:
        raise DataError("there is no finished case yet; run the study further")
    names = ("prm_over_bare_passes", "plain_loop_over_prm", "peak_memory_ratio_10x_images")
    summary: dict[str, float | int] = {name: sum(row[name] for row in rows) / len(rows) for name in names}
    text = (
        f"# What PRM costs\n\n{STEPS} steps on images of {SIDE} pixels, in batches of {BATCH}; seconds are of "
        "processor time on one thread, and memory is of the whole process.\n\n"
    )
    return Report(markdown=text + markdown_table(rows, by=("tower",), columns=COLUMNS), summary=summary)


def transfer_cost() -> Study:
    """Time and memory of PRM against plain forms in the same run."""
    cases = tuple(Case(tower=tower, seed=seed) for seed in range(2) for tower in TOWERS)
    return Study(name="transfer_cost", cases=cases, run_case=run_case, report=report_cost)
