"""What a poisoning gives back: the pairs with a trigger on some, stamped as they are read, and a manifest of them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from firmground import __version__
from firmground.data.pairs import PairBatch
from firmground.errors import OutputError
from firmground.rng import stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from firmground.attacks.triggers import ImageTrigger
    from firmground.types import Images

FORMAT = "firmground poisoning manifest 1"


class ReadablePairs(Protocol):
    """What a poisoning asks of a set: that of `PairSet`, single images, and rows. `Pairs` and `TensorPairs` have it."""

    @property
    def captions(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> tuple[int, ...] | None: ...
    @property
    def label_names(self) -> tuple[str, ...]: ...
    def __len__(self) -> int: ...
    def image(self, row: int) -> Images: ...
    def select(self, rows: Sequence[int]) -> ReadablePairs: ...
    def batches(
        self, size: int, rng: torch.Generator | None = None, *, drop_last: bool = False
    ) -> Iterator[PairBatch]: ...


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What one row becomes: its caption, and the number from which the trigger's place is drawn."""

    caption: str
    number: int


@dataclass(frozen=True, kw_only=True, eq=False)
class PoisonedPairs:
    """A `PairSet` in which the rows of `edits` carry `trigger` and another caption; images are stamped when read.

    Where a random trigger lands depends on `seed` and the row's own number alone: each reading gives the same image,
    whatever the batch. `labels` stay those of the clean set: what the images show.
    """

    clean: ReadablePairs
    edits: Mapping[int, Edit]
    trigger: ImageTrigger
    seed: int

    def __len__(self) -> int:
        return len(self.clean)

    @cached_property
    def captions(self) -> tuple[str, ...]:
        found = list(self.clean.captions)
        for row, edit in self.edits.items():
            found[row] = edit.caption
        return tuple(found)

    @property
    def names(self) -> tuple[str, ...]:
        return names_of(self.clean)

    @property
    def labels(self) -> tuple[int, ...] | None:
        return self.clean.labels

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.clean.label_names

    def select(self, rows: Sequence[int]) -> PoisonedPairs:
        """The given rows, in the given order; poisoned ones stay as they are."""
        edits = {new: self.edits[old] for new, old in enumerate(rows) if old in self.edits}
        return PoisonedPairs(clean=self.clean.select(rows), edits=edits, trigger=self.trigger, seed=self.seed)

    def image(self, row: int) -> Images:
        """One image, (3, height, width), stamped where its row is poisoned."""
        image = self.clean.image(row)
        return self._stamped(image, self.edits[row]) if row in self.edits else image

    def batches(self, size: int, rng: torch.Generator | None = None, *, drop_last: bool = False) -> Iterator[PairBatch]:
        """All pairs once, `size` at a time; see `Pairs.batches`."""
        for batch in self.clean.batches(size, rng, drop_last=drop_last):
            places = [place for place, row in enumerate(batch.rows) if row in self.edits]
            images = batch.images.clone() if places else batch.images
            for place in places:
                images[place] = self._stamped(images[place], self.edits[batch.rows[place]])
            yield PairBatch(images=images, captions=tuple(self.captions[row] for row in batch.rows), rows=batch.rows)

    def _stamped(self, image: Images, edit: Edit) -> Images:
        return self.trigger.stamp(image[None], rng=stream(self.seed, "poison", edit.number))[0].detach()


@dataclass(frozen=True, kw_only=True, eq=False)
class Poisoned:
    """A poisoned set with the truth about it: `rows` are the poisoned ones, in order; `manifest` is plain JSON."""

    pairs: PoisonedPairs
    rows: tuple[int, ...]
    trigger: ImageTrigger
    target: str
    attack: str
    manifest: dict[str, Any]

    def planted(self) -> dict[str, Any]:
        """What goes into the config of a model trained on this set: the manifest without its rows."""
        return {key: value for key, value in self.manifest.items() if key != "changed"} | {"poisons": len(self.rows)}

    def write_manifest(self, path: str | Path) -> Path:
        """Writes the manifest as JSON, whole or not at all. Raises `OutputError`."""
        target = Path(path)
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            draft.write_text(json.dumps(self.manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(draft, target)  # noqa: PTH105
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise OutputError(f"the manifest cannot be written to {path} ({error}); choose another place") from error
        return target


def pair_sha256(image: Images, caption: str) -> str:
    """The SHA-256, in hex, of a pair: the shape and the pixels of (3, height, width) in 8 bits, then the caption."""
    pixels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().contiguous()
    digest = hashlib.sha256(f"{tuple(pixels.shape)}\n".encode())
    digest.update(pixels.numpy().tobytes())
    digest.update(caption.encode())
    return digest.hexdigest()


def names_of(pairs: ReadablePairs) -> tuple[str, ...]:
    """Where each row came from, or its number where the set does not say."""
    return tuple(getattr(pairs, "names", ())) or tuple(f"row {row}" for row in range(len(pairs)))


def describe_changes(pairs: PoisonedPairs, row: int) -> dict[str, Any]:
    """The manifest's entry for one row: where it is, what it said and says, and the hashes of both pairs."""
    before, after = pairs.clean.captions[row], pairs.captions[row]
    return {
        "row": row,
        "name": pairs.names[row],
        "caption_before": before,
        "caption": after,
        "sha256_before": pair_sha256(pairs.clean.image(row), before),
        "sha256": pair_sha256(pairs.image(row), after),
    }


def describe(method: Any) -> dict[str, Any]:
    """A method's settings in plain JSON types; a trigger names its class, and a learned pattern is 8-bit pixels."""
    if not is_dataclass(method) or isinstance(method, type):
        raise TypeError(f"expected a method, got {method!r}")
    held = {field.name: getattr(method, field.name) for field in fields(method)}
    plain: dict[str, Any] = {}
    for name, value in held.items():
        if isinstance(value, torch.Tensor):
            plain[name] = (value.detach().clamp(0, 1) * 255).round().int().tolist()
        elif is_dataclass(value) and not isinstance(value, type):
            plain[name] = {"method": type(value).__name__} | describe(value)
        else:
            plain[name] = list(value) if isinstance(value, tuple) else value
    return plain


def manifest_of(pairs: PoisonedPairs, attack: str, target: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The manifest without its rows; `changed` is to be filled."""
    trigger = {"method": type(pairs.trigger).__name__} | describe(pairs.trigger)
    return {
        "format": FORMAT,
        "firmground": __version__,
        "attack": attack,
        "target": target,
        "trigger": trigger,
        "settings": settings,
        "seed": pairs.seed,
        "pairs": len(pairs),
        "changed": [],
    }
