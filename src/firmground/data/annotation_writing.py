"""Writes annotated images as a folder that `annotation_files` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from firmground.data.annotated_images import IGNORED
from firmground.data.annotation_entries import ANNOTATIONS
from firmground.data.encoding import png
from firmground.drafts import drafted
from firmground.errors import OutputError

if TYPE_CHECKING:
    from firmground.data.annotated_images import AnnotatedImages

IMAGES, MASKS = "images", "masks"


def write_annotated(data: AnnotatedImages, folder: str | Path) -> Path:
    """Writes images, masks and `annotations.json` into a new folder that `read_annotated` reads; returns it.

    Raises `OutputError` where it cannot be written or exists.
    """
    target = Path(folder)
    if target.exists():
        raise OutputError(f"{folder} exists; choose another place, or remove it first")
    ids = {name: number for number, name in enumerate(data.object_names, start=1)}
    try:
        with drafted(target) as draft:
            (draft / MASKS).mkdir()
            for row, file in enumerate(data.files):
                place = draft / IMAGES / file
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(png(data.image(row)))
                if data.masks is not None:
                    mask_file(data, row, ids, draft / MASKS / f"{row:06d}.png")
            (draft / ANNOTATIONS).write_text(json.dumps(listed_of(data, ids), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {folder} ({error}); choose another place") from error
    return target


def mask_file(data: AnnotatedImages, row: int, ids: dict[str, int], path: Path) -> None:
    """Writes one mask."""
    assert data.masks is not None
    table = torch.full((256,), IGNORED, dtype=torch.uint8)
    for place, name in enumerate(data.names):
        table[place] = ids.get(name, 0)
    Image.fromarray(table[data.masks[row].long()].numpy()).save(path, format="PNG")


def listed_of(data: AnnotatedImages, ids: dict[str, int]) -> dict[str, Any]:
    """What `annotations.json` holds."""
    images = []
    for row, (file, (height, width)) in enumerate(zip(data.files, data.sizes, strict=True)):
        mask = {} if data.masks is None else {"mask": f"{MASKS}/{row:06d}.png"}
        images.append({"id": row, "file_name": f"{IMAGES}/{file}", "height": height, "width": width, **mask})
    marks: list[dict[str, Any]] = []
    for row, own in enumerate(data.objects or ()):
        for place, ((x0, y0, x1, y1), label) in enumerate(zip(own.boxes, own.labels, strict=True)):
            crowd = {"iscrowd": 1} if place in own.crowds else {}
            box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "category_id": ids[data.names[label]]}
            marks.append({"image_id": row, **box, **crowd})
    for row, captions in enumerate(data.captions or ()):
        marks += [{"image_id": row, "caption": caption} for caption in captions]
    return {
        "categories": [{"id": i, "name": name, "novel": name in data.novel} for name, i in ids.items()],
        "images": images,
        "annotations": marks,
        "questions": [
            {"image_id": row, "question": one.text, "answers": list(one.answers), "kind": one.kind}
            for row, own in enumerate(data.questions or ())
            for one in own
        ],
    }
