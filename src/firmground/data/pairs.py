"""Image-text pairs: read from disk piece by piece and decoded in parallel, or held in memory."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import torch

from firmground.data.counting import counted_lines
from firmground.data.decoding import decode
from firmground.errors import DataError
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from firmground.types import Images

AHEAD = 2  # batches that are being decoded while one is used


@dataclass(frozen=True, kw_only=True, eq=False)
class PairBatch:
    """Images, (batch, 3, height, width) float32 in [0, 1], with their captions and their row numbers in the set."""

    images: Images
    captions: tuple[str, ...]
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)


class PairSet(Protocol):
    """What training, sifting and evaluation ask of a set of pairs; `Pairs` and `TensorPairs` are such sets."""

    @property
    def captions(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def batches(self, size: int, rng: torch.Generator | None = None) -> Iterator[PairBatch]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Pairs of which only the captions are in memory; `read` gives the bytes of a row's image file.

    `names` says where each row came from. Images become squares of `image_size` pixels. `counted` says how often a
    reader met what (rows left out, captions cut). `broken` fills while images are decoded: rows that cannot be, and
    why.
    """

    captions: tuple[str, ...]
    names: tuple[str, ...]
    read: Callable[[int], bytes]
    image_size: int = 224
    labels: tuple[int, ...] | None = None
    label_names: tuple[str, ...] = ()
    counted: Mapping[str, int] = field(default_factory=dict)
    workers: int = 4
    broken: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.captions:
            said = "".join(f"; {line}" for line in counted_lines(self.counted, "row"))
            raise DataError(f"there is no usable pair{said}; expected images with captions")
        if len(self.captions) != len(self.names) or len(self.labels or self.captions) != len(self.captions):
            raise DataError(f"expected a name and a label for each of {len(self.captions)} captions")
        if self.image_size < 1 or self.workers < 1:
            raise DataError(f"expected positive numbers, got image_size {self.image_size}, workers {self.workers}")

    def __len__(self) -> int:
        return len(self.captions)

    def select(self, rows: Sequence[int]) -> Pairs:
        """The given rows, in the given order."""
        chosen, read = list(rows), self.read
        return replace(
            self,
            captions=tuple(self.captions[i] for i in chosen),
            names=tuple(self.names[i] for i in chosen),
            read=lambda row: read(chosen[row]),
            labels=None if self.labels is None else tuple(self.labels[i] for i in chosen),
            broken={new: self.broken[old] for new, old in enumerate(chosen) if old in self.broken},
        )

    def image(self, row: int) -> Images:
        """One image, (3, image_size, image_size) float32; `DataError` where it cannot be read."""
        return as_float(self._decoded(row))

    def batches(self, size: int, rng: torch.Generator | None = None, *, drop_last: bool = False) -> Iterator[PairBatch]:
        """All pairs once, `size` at a time, in an order that `rng` draws, or as they are without one.

        Images are decoded by `workers` threads, at most `AHEAD` batches ahead. A broken image is left out of its batch
        and noted in `broken`; a batch of nothing else is left out. Raises `DataError` where `size` exceeds the set.
        """
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque[list[tuple[int, Future[torch.Tensor | None]]]] = deque()
            try:
                for rows in orders(len(self), size, rng, drop_last):
                    waiting.append([(row, pool.submit(self._sound, row)) for row in rows])
                    if len(waiting) > AHEAD:
                        yield from self._gathered(waiting.popleft())
                while waiting:
                    yield from self._gathered(waiting.popleft())
            finally:
                for _, future in (pair for batch in waiting for pair in batch):
                    future.cancel()

    def sound(self, watch: Watch = ignore) -> Pairs:
        """The pairs whose images can be decoded; looks at every one."""
        for batch in self.batches(min(64, len(self))):
            watch(batch.rows[-1] + 1, len(self), "reading every image")
        whole = self.select([row for row in range(len(self)) if row not in self.broken])
        return replace(whole, counted={**self.counted, "image cannot be read": len(self.broken)})

    def _gathered(self, batch: list[tuple[int, Future[torch.Tensor | None]]]) -> Iterator[PairBatch]:
        found = [(row, future.result()) for row, future in batch]
        good = [(row, image) for row, image in found if image is not None]
        if good:
            yield PairBatch(
                images=as_float(torch.stack([image for _, image in good])),
                captions=tuple(self.captions[row] for row, _ in good),
                rows=tuple(row for row, _ in good),
            )
        elif len(self.broken) == len(self):
            raise DataError(f"none of {len(self)} images can be read; the first: {next(iter(self.broken.values()))}")

    def _sound(self, row: int) -> torch.Tensor | None:
        try:
            return self._decoded(row)
        except DataError as error:
            self.broken[row] = str(error)
            return None

    def _decoded(self, row: int) -> torch.Tensor:
        try:
            data = self.read(row)
        except OSError as error:
            raise DataError(f"{self.names[row]} cannot be read ({error}); restore the file") from error
        return decode(data, self.image_size, self.names[row])


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorPairs:
    """Pairs in memory: `images` (count, 3, height, width), float in [0, 1] or uint8, and one caption each."""

    images: torch.Tensor
    captions: tuple[str, ...]
    labels: tuple[int, ...] | None = None
    label_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] != 3 or 0 in self.images.shape:
            raise DataError(f"images must have the shape (count, 3, height, width), got {tuple(self.images.shape)}")
        if not self.images.is_floating_point() and self.images.dtype != torch.uint8:
            raise DataError(f"images must be floats in [0, 1] or uint8, got {self.images.dtype}")
        if not len(self.images) == len(self.captions) == len(self.labels or self.captions):
            raise DataError(f"expected a caption and a label for each of {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.captions)

    def select(self, rows: Sequence[int]) -> TensorPairs:
        """The given rows, in the given order."""
        return replace(
            self,
            images=self.images[list(rows)],
            captions=tuple(self.captions[i] for i in rows),
            labels=None if self.labels is None else tuple(self.labels[i] for i in rows),
        )

    def image(self, row: int) -> Images:
        """One image, (3, height, width) float."""
        return as_float(self.images[row])

    def batches(self, size: int, rng: torch.Generator | None = None, *, drop_last: bool = False) -> Iterator[PairBatch]:
        """All pairs once, `size` at a time; see `Pairs.batches`."""
        for rows in orders(len(self), size, rng, drop_last):
            captions = tuple(self.captions[row] for row in rows)
            yield PairBatch(images=as_float(self.images[rows]), captions=captions, rows=tuple(rows))


def orders(count: int, size: int, rng: torch.Generator | None, drop_last: bool) -> Iterator[list[int]]:
    """The rows of each batch; the last is smaller where `size` does not divide `count`, or dropped."""
    if not 0 < size <= count:
        raise DataError(f"a batch of {size} cannot be taken from {count} pairs; choose a batch size from 1 to {count}")
    order = torch.arange(count) if rng is None else torch.randperm(count, generator=rng)
    for rows in order.split(size):
        if len(rows) == size or not drop_last:
            yield rows.tolist()


def as_float(images: torch.Tensor) -> Images:
    """Images in [0, 1]: 8-bit ones divided by 255, others as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images
