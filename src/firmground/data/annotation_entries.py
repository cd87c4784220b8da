"""What `annotations.json` names, found on disk: images with their sizes, and masks that are decoded when needed."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, overload

import numpy
import torch
from PIL import Image

from firmground.data.annotated_images import IGNORED
from firmground.data.image_files import size_of
from firmground.data.pair_files import IMAGE_SUFFIXES, inside_root
from firmground.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

ANNOTATIONS = "annotations.json"


@dataclass(frozen=True, kw_only=True)
class Names:
    """The categories: `places` leads from an id to the index in `all`, which begins with the background."""

    all: tuple[str, ...]
    novel: tuple[str, ...]
    places: dict[int, int]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image of the list, found on disk."""

    id: Any
    name: str
    path: Path
    size: tuple[int, int]
    mask: Path | None

    @classmethod
    def of(cls, home: Path, root: Path, image: dict[str, Any]) -> Entry:
        """The image's file below `root`, whose size is that of the original below `home`."""
        name = image.get("file_name")
        if not isinstance(name, str) or not name or "id" not in image:
            raise DataError(f"an image in {ANNOTATIONS} of {home} has no id or no file_name")
        own = inside_root(home.resolve(), name, f"{ANNOTATIONS} of {home}")
        path = own if root == home.resolve() else other_file(root, name)
        size = measured(path)
        if path != own and own.is_file() and measured(own) != size:
            raise DataError(
                f"{path} is {shown(size)} pixels, but {own}, which is annotated, is {shown(measured(own))}; make the "
                "adversarial images at the annotated size ('firmground perturb --largest PIXELS' for large ones)"
            )
        told = (image.get("height", size[0]), image.get("width", size[1]))
        if told != size:
            raise DataError(
                f"{ANNOTATIONS} of {home} says that {name} is {shown(told)} pixels, but it is {shown(size)}"
            )
        mask = image.get("mask")
        place = None if mask is None else inside_root(home.resolve(), str(mask), f"{ANNOTATIONS} of {home}")
        return cls(id=image["id"], name=name, path=path, size=size, mask=place)


@dataclass(frozen=True, kw_only=True)
class Masks(Sequence[torch.Tensor]):
    """Masks, decoded when they are asked for."""

    entries: Sequence[Entry]
    names: Names
    _table: torch.Tensor = field(init=False, repr=False, default_factory=lambda: torch.full((256,), -1))

    def __post_init__(self) -> None:
        self._table[0], self._table[IGNORED] = 0, IGNORED
        for number, place in self.names.places.items():
            self._table[number] = place

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, row: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[torch.Tensor]: ...
    def __getitem__(self, row: int | slice) -> torch.Tensor | Sequence[torch.Tensor]:
        if isinstance(row, slice):
            return [self[i] for i in range(len(self))[row]]
        entry = self.entries[row]
        assert entry.mask is not None
        values = read_mask(entry.mask)
        if tuple(values.shape) != entry.size:
            raise DataError(
                f"{entry.mask} is {shown(tuple(values.shape))} pixels, but its image is {shown(entry.size)}"
            )
        found = self._table[values]
        if (found < 0).any():
            raise DataError(f"{entry.mask} has the value {int(values[found < 0][0])}, which is no category's id")
        return found


def read_mask(path: Path) -> torch.Tensor:
    """The values of a mask, (height, width) int64."""
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=("PNG",)) as opened:
            if opened.mode not in ("L", "P"):
                raise DataError(f"{path} has the mode {opened.mode}; expected a PNG of one 8-bit channel")
            return torch.from_numpy(numpy.array(opened)).long()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a mask ({error}); expected a PNG of one 8-bit channel") from error


def measured(path: Path) -> tuple[int, int]:
    """Height and width of an image file, from its header."""
    if not path.is_file():
        raise DataError(f"there is no image {path}, which {ANNOTATIONS} names")
    found = size_of(path, path.parent, Counter())
    if found is None:
        raise DataError(
            f"{path} cannot be read as an image: it is damaged or no image; expected one that ends in "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    return found


def other_file(root: Path, name: str) -> Path:
    """The file of that name, or last part of a name, below another folder, or the one of another ending."""
    for short in (name, PurePosixPath(name).name):
        exact = inside_root(root, short, str(root))
        for path in (exact, *(exact.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)):
            if path.is_file():
                return path
    raise DataError(f"there is no image {name} in {root}, whatever its ending; expected one for each annotated image")


def shown(size: tuple[Any, ...]) -> str:
    """Height and width as people say it."""
    return f"{size[1]} x {size[0]}"
