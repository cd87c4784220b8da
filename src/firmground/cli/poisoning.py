"""What `firmground poison` does: makes the attack from words, and writes the poisoned set."""

from __future__ import annotations

import inspect
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from firmground.attacks.poisoning import MANIFEST
from firmground.cli.catalogue import method
from firmground.cli.pair_table import pair_table
from firmground.cli.settings import assigned, made
from firmground.data.counting import counted_lines
from firmground.data.encoding import png
from firmground.data.pair_files import IMAGE_SUFFIXES, TABLE
from firmground.errors import UsageError
from firmground.reports.writing import new_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from firmground.attacks.poisoning import Poisoned
    from firmground.data.pairs import Pairs
    from firmground.types import Watch

SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif", "PPM": ".ppm"}
OWN = ("target", "count", "rate", "trigger")  # options of their own


def build_attack(name: str, trigger: str | None, settings: Sequence[str], amount: Mapping[str, Any]) -> Any:
    """The poisoning with its trigger; settings go to both. Raises `UsageError`."""
    attack = method("poisoning", name)
    stamped = "trigger" in inspect.signature(attack).parameters
    if stamped and trigger is None:
        raise UsageError(f"{name} stamps a trigger; name one with --trigger (see 'firmground methods image-triggers')")
    if not stamped and trigger is not None:
        raise UsageError(f"{name} makes its own trigger; leave --trigger out")
    if trigger is None:
        (own,) = assigned([attack], settings, kept=OWN)
        return made(attack, own | dict(amount))
    stamp = method("image-triggers", trigger)
    own, its = assigned([attack, stamp], settings, kept=OWN)
    return made(attack, own | dict(amount) | {"trigger": made(stamp, its)})


def build_trigger(name: str, settings: Sequence[str]) -> Any:
    """The image trigger of that name."""
    stamp = method("image-triggers", name)
    (its,) = assigned([stamp], settings)
    return made(stamp, its)


def needs_surrogate(attack: Any) -> bool:
    """Whether a poisoning optimises its trigger on an encoder."""
    return "surrogate" in inspect.signature(attack.poison).parameters


def write(out: Path, poisoned: Poisoned, pairs: Pairs, *, watch: Watch) -> None:
    """Writes pairs.csv, images and manifest.json: poisoned images as PNG at the set's size, others as they are.

    Rows are those of `pairs`, in their order; in the manifest each changed one also gets its `image`. Raises
    `OutputError`; nothing is left then.
    """
    digits, places = len(str(len(pairs))), {}
    with new_folder(out) as folder:
        (folder / "images").mkdir()
        for row in range(len(pairs)):
            if row in poisoned.pairs.edits:
                data, suffix = png(poisoned.pairs.image(row)), ".png"
            else:
                data = pairs.read(row)
                suffix = suffix_of(pairs.names[row], data)
            places[row] = f"images/{row:0{digits}d}{suffix}"
            (folder / places[row]).write_bytes(data)
            watch(row + 1, len(pairs), "writing")
        rows = ((row, places[row], caption) for row, caption in enumerate(poisoned.pairs.captions))
        (folder / TABLE).write_text(pair_table(rows, pairs), encoding="utf-8")
        changed = [entry | {"image": places[entry["row"]]} for entry in poisoned.manifest["changed"]]
        whole = poisoned.manifest | {"image_size": pairs.image_size, "changed": changed}
        manifest = json.dumps(whole, indent=2, ensure_ascii=False)
        (folder / MANIFEST).write_text(manifest + "\n", encoding="utf-8")


def summary(poisoned: Poisoned, pairs: Pairs, *, source: str, out: Path, seed: int) -> dict[str, Any]:
    """The JSON object that `--json` prints."""
    told = poisoned.planted()
    return {
        "schema": "firmground/poison/1",
        "pairs_from": source,
        "out": str(out),
        "attack": told["attack"],
        "target": told["target"],
        "trigger": told["trigger"],
        "settings": told["settings"],
        "seed": seed,
        "pairs": len(pairs),
        "poisons": len(poisoned.rows),
        "left_out": list(counted_lines(pairs.counted, "row")),
    }


def suffix_of(name: str, data: bytes) -> str:
    """How an image's file name should end: as it does, or by what its bytes are."""
    suffix = Path(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return suffix
    with Image.open(io.BytesIO(data)) as opened:
        return SUFFIX.get(opened.format or "", ".png")
