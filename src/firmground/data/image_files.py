"""Images in files, by their size: found without decoding them, and decoded one batch at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image

from firmground.data.counting import counted_lines
from firmground.data.decoding import FORMATS, decode
from firmground.data.pair_files import IMAGE_SUFFIXES, inside_root, is_image_name
from firmground.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from firmground.types import Images

TURNED = 5  # EXIF orientations from here on exchange height and width
ORIENTATION = 0x0112


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """One file: its `path`, the `name` of what is made of it (without a suffix), and its size as it will be decoded."""

    path: Path
    name: str
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class FileBatch:
    """Files of one size and their images, (batch, 3, height, width), multiples of 1/255; `broken` could not be read."""

    files: tuple[ImageFile, ...]
    images: Images
    broken: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Files in order of their names. An image whose longer side exceeds `largest` pixels is made that large.

    `counted` says how many files of which kind were left out or changed.
    """

    files: tuple[ImageFile, ...]
    largest: int
    counted: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, size: int) -> Iterator[tuple[ImageFile, ...]]:
        """The files, up to `size` of one height and width at a time, in an order that depends on the files alone."""
        groups: dict[tuple[int, int], list[ImageFile]] = {}
        for file in self.files:
            groups.setdefault((file.height, file.width), []).append(file)
        for group in groups.values():
            for start in range(0, len(group), size):
                yield tuple(group[start : start + size])

    def read(self, files: tuple[ImageFile, ...]) -> FileBatch:
        """Decodes files of one size; what cannot be decoded is left out and said in `broken`."""
        good, images, broken = [], [], {}
        for file in files:
            try:
                images.append(shrunk(decode(file.path.read_bytes(), None, str(file.path)), file))
                good.append(file)
            except (DataError, OSError) as error:
                broken[str(file.path)] = str(error)
        height, width = files[0].height, files[0].width
        stacked = torch.stack(images) if images else torch.zeros(0, 3, height, width)
        return FileBatch(files=tuple(good), images=stacked, broken=broken)


def find_images(source: str | Path, *, largest: int = 1024) -> ImageFiles:
    """The images of a folder, or one file. Only headers are read.

    Files that are no images, and links that leave the folder, are left out and counted. Raises `DataError` where there
    is no image.
    """
    home, paths = Path(source), image_paths(source)
    counted: Counter[str] = Counter()
    sizes = {path: size for path in paths if (size := size_of(path, home, counted)) is not None}
    stems = Counter(own_name(path, home, short=True) for path in sizes)
    files = []
    for path, (height, width) in sizes.items():
        scale = min(1.0, largest / max(height, width))
        if scale < 1:
            counted[f"larger than {largest} pixels, made smaller"] += 1
        short = stems[own_name(path, home, short=True)] == 1
        files.append(
            ImageFile(
                path=path,
                name=own_name(path, home, short=short),
                height=max(1, round(scale * height)),
                width=max(1, round(scale * width)),
            )
        )
    if not files:
        raise none_in(home, counted)
    return ImageFiles(files=tuple(files), largest=largest, counted=dict(counted))


def image_paths(source: str | Path) -> list[Path]:
    """All files of a folder that are named as images, by name, or the one file. Raises `DataError` where is none."""
    home = Path(source)
    if not home.exists():
        raise DataError(f"there is no file or folder {home}; expected a folder of images, or one image")
    paths = [home] if home.is_file() else sorted(path for path in home.rglob("*") if is_image_name(path))
    if not paths:
        raise none_in(home, {})
    return paths


def none_in(home: Path, counted: Mapping[str, int]) -> DataError:
    """What to say where a folder holds no image; `counted` are the files that might have been."""
    said = "".join(f"; {line}" for line in counted_lines(counted, "file"))
    return DataError(f"there is no image in {home}{said}; expected files that end in {', '.join(IMAGE_SUFFIXES)}")


def own_name(path: Path, home: Path, *, short: bool) -> str:
    """A file's path in its folder; `short` without its suffix, unless two would then have one name."""
    inner = Path(path.name) if path == home else path.relative_to(home)
    return (inner.with_suffix("") if short else inner).as_posix()


def size_of(path: Path, home: Path, counted: Counter[str]) -> tuple[int, int] | None:
    """Height and width as the image will be decoded, from its header; None, and counted, where it has none."""
    try:
        inside_root(path.resolve().parent if path == home else home.resolve(), path_in(path, home), str(home))
        with Image.open(path, formats=FORMATS) as opened:
            width, height = opened.size
            turned = opened.getexif().get(ORIENTATION, 1) >= TURNED
    except DataError:
        counted["leads out of the folder"] += 1
        return None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, OverflowError):
        counted["cannot be read as an image"] += 1
        return None
    return (width, height) if turned else (height, width)


def path_in(path: Path, home: Path) -> str:
    """A file's path as `inside_root` takes it."""
    return path.resolve().name if path == home else path.relative_to(home).as_posix()


def shrunk(image: torch.Tensor, file: ImageFile) -> Images:
    """A decoded image, uint8, as floats that are multiples of 1/255, at the size that the file shall have."""
    if tuple(image.shape[-2:]) == (file.height, file.width):
        return image.float() / 255
    if max(image.shape[-2:]) <= max(file.height, file.width):
        raise DataError(f"{file.path} has another size than its header says; get a new copy")
    small = F.interpolate(
        image[None].float(), size=(file.height, file.width), mode="bicubic", antialias=True, align_corners=False
    )
    return small[0].round().clamp(0, 255) / 255
