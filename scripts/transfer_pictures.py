"""Draws scenes as victims see them, clean and attacked, for the study `transfer`:

    FIRMGROUND_POPULATION=FOLDER python scripts/transfer_pictures.py

Victims are made there if they are missing. The images are attacked by PRM on the CLIP of the package.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from firmground.cli.progress import progress
from firmground.studies.population import population_folder
from firmground.studies.transfer import Setting, attacked
from firmground.studies.transfer_cases import Case
from firmground.studies.transfer_report import SURROGATE
from firmground.studies.victims.building import built
from firmground.studies.victims.catalogue import Plan
from firmground.studies.victims.lessons import CLASSES, OBJECTS, TASKS, examination

SHOWN = 3  # the first test scenes of three objects
TARGET = Path(__file__).parent.parent / "benchmarks" / "transfer" / "pictures.png"
HEADS = dict(zip(TASKS, ("crops", "crops", "gpt2", "film"), strict=True))
MAGNIFIED = 8
SURE = 0.3


def main(attack: str = "prm", epsilon: int = 8, into: Path = TARGET) -> None:
    """Writes the picture."""
    folder = population_folder()
    whole = examination(40)
    assert whole.objects is not None
    exam = whole.select([row for row, own in enumerate(whole.objects) if len(own.boxes) == OBJECTS[1]][:SHOWN])
    clean = torch.stack([exam.image(row) for row in range(len(exam))])
    with progress() as watch:
        case = Case(attack=attack, epsilon=epsilon)
        changed, _ = attacked(case, Setting(folder=folder), clean, watch)
        jury = {
            task: built(Path(folder), Plan(task=task, head=head, tower=SURROGATE), watch)
            for task, head in HEADS.items()
        }
    assert exam.questions is not None
    asked = [next(one.text for one in own if one.kind in ("colour", "shape")) for own in exam.questions]
    figure = Figure(figsize=(8.4, 5 * SHOWN), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * SHOWN, 4)
    for which, images in enumerate((clean, changed)):
        seen = _seen(jury, images, asked)
        for row in range(SHOWN):
            line = axes[2 * row + which]
            _show(line, images[row], seen, row, asked[row], attack if which else "clean")
            difference = (0.5 + MAGNIFIED * (images[row] - clean[row])).clamp(0, 1)
            line[3].imshow(difference.permute(1, 2, 0))
            line[3].set_title(f"change, x{MAGNIFIED}", fontsize=8)
    into.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=75)
    Image.open(drawn).convert("RGB").quantize(256).save(into, optimize=True)
    typer.echo(f"{into}: {into.stat().st_size / 1000:.0f} kB")


def _seen(jury: dict[str, Any], images: torch.Tensor, asked: list[str]) -> dict[str, Any]:
    return {
        "masks": jury["segmentation"].segment(images, ("background", *CLASSES)),
        "boxes": jury["detection"].detect(images, CLASSES),
        "captions": jury["captioning"].caption(images),
        "answers": jury["vqa"].answer(images, asked),
    }


def _show(axes: Any, image: torch.Tensor, seen: dict[str, Any], row: int, question: str, title: str) -> None:
    for cell in axes:
        cell.set_xticks([])
        cell.set_yticks([])
    for cell in (axes[0], axes[2]):
        cell.imshow(image.permute(1, 2, 0))
    axes[0].set_title(title, fontsize=8, loc="left")
    axes[0].set_xlabel(f"{seen['captions'][row]}\n{question} {seen['answers'][row]}", fontsize=7, loc="left")
    mask = seen["masks"][row]
    axes[1].imshow(mask, cmap="tab20", vmin=0, vmax=19, interpolation="nearest")
    named = [(CLASSES[kind - 1], (mask == kind).sum()) for kind in mask.unique().tolist() if kind]
    axes[1].set_title(", ".join(name for name, size in named if size > 20), fontsize=7)
    found = seen["boxes"][row]
    names = []
    for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
        if score > SURE:
            x0, y0, x1, y1 = box
            axes[2].add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="white", linewidth=1.5))
            names.append(CLASSES[label])
    axes[2].set_title(", ".join(names), fontsize=7)


if __name__ == "__main__":
    typer.run(main)
