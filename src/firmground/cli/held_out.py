"""Image-text pairs as the commands for dual encoders take them: opened, labelled where they can be, and split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from firmground.data.counting import counted_lines
from firmground.data.files import read_texts
from firmground.data.labelled_images import LabelledImages
from firmground.data.mentions import mentioned
from firmground.data.pair_files import TEMPLATES, open_pairs
from firmground.data.tables import read_utf8
from firmground.errors import DataError
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from firmground.data.pairs import Pairs

MEMORY = 1 << 30  # bytes of images that are held at once
FEWEST = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """A set of pairs, and how its classes are asked for; `names` is empty where it has none.

    `named` are the rows whose class is known: all, or those whose caption names one class.
    """

    pairs: Pairs
    named: tuple[int, ...]
    names: tuple[str, ...]
    templates: tuple[str, ...]


def open_set(
    source: str,
    *,
    image_size: int,
    root: str | None = None,
    classes: str | None = None,
    templates: str | None = None,
) -> Opened:
    """Opens pairs; their classes are those of the set's own labels, or of `classes`, a file of names.

    With names and no labels, the class of a pair is the one that its caption names. Raises `DataError`.
    """
    prompts = TEMPLATES if templates is None else read_templates(Path(templates))
    pairs = open_pairs(source, image_size=image_size, templates=prompts, root=root)
    if classes is not None:
        pairs = _labelled(pairs, read_texts(classes))
    named = tuple(row for row, label in enumerate(pairs.labels or ()) if label >= 0)
    if classes is not None and not named:
        raise DataError(f"no pair of {source} shows one of the classes in {classes}; name classes that captions name")
    return Opened(pairs=pairs, named=named, names=pairs.label_names, templates=prompts)


def split_set(opened: Opened, share: float, rng: torch.Generator) -> tuple[Opened, Opened]:
    """(the rest, `share` of the pairs, held out); where classes are known, only pairs of a known one are held out.

    At most what fits `MEMORY` is held out. Raises `DataError` where too few pairs are left.
    """
    rows = opened.named or range(len(opened.pairs))
    most = max(FEWEST, MEMORY // (3 * opened.pairs.image_size**2))
    count = min(max(FEWEST, round(share * len(rows))), most)
    if len(opened.pairs) - count < FEWEST:
        raise DataError(f"{len(opened.pairs)} pairs are too few to hold {count} out; give more")
    drawn = {rows[i] for i in torch.randperm(len(rows), generator=rng)[:count].tolist()}
    kept = [row for row in range(len(opened.pairs)) if row not in drawn]
    return picked(opened, kept), picked(opened, sorted(drawn))


def picked(opened: Opened, rows: Sequence[int]) -> Opened:
    """The given rows of a set."""
    known = set(opened.named)
    named = tuple(new for new, old in enumerate(rows) if old in known)
    return replace(opened, pairs=opened.pairs.select(rows), named=named)


def in_memory(opened: Opened, watch: Watch = ignore) -> LabelledImages:
    """The images of known classes, 8 bits a channel; those that cannot be read are left out, and noted in the pairs.

    Of more than `MEMORY` holds, as many as it does, spread over the set. Raises `DataError` where none can be read.
    """
    most = max(FEWEST, MEMORY // (3 * opened.pairs.image_size**2))
    step = -(-len(opened.named) // most)
    pairs = opened.pairs.select(opened.named[::step])
    images: list[torch.Tensor] = []
    rows: list[int] = []
    for batch in pairs.batches(min(64, len(pairs))):
        images.append((batch.images * 255).round().to(torch.uint8))
        rows += batch.rows
        watch(batch.rows[-1] + 1, len(pairs), "reading images")
    opened.pairs.broken.update({opened.named[::step][row]: why for row, why in pairs.broken.items()})
    labels = pairs.labels or ()
    return LabelledImages(
        images=torch.cat(images),
        labels=tuple(labels[row] for row in rows),
        label_names=opened.names,
        templates=opened.templates,
    )


def spread(pairs: Pairs, count: int) -> torch.Tensor:
    """Up to `count` images spread over a set, (count, 3, side, side). Raises `DataError` where none can be read."""
    step = max(1, len(pairs) // count)
    some = pairs.select(range(0, len(pairs), step)[:count])
    images = [batch.images for batch in some.batches(len(some))]
    if not images:
        raise DataError(f"no image can be read: {next(iter(some.broken.values()), 'there is none')}")
    return torch.cat(images)


def left_out(sets: Sequence[Pairs], counted: Mapping[str, int]) -> Iterator[str]:
    """What was left out of a set that was split into these, in words: what its reader counted, and broken images."""
    yield from counted_lines(counted, "row")
    broken = [why for pairs in sets for why in pairs.broken.values()]
    if broken:
        total = sum(len(pairs) for pairs in sets)
        yield f"{len(broken)} of {total} images could not be read and were left out; the first: {broken[0]}"


def _labelled(pairs: Pairs, names: tuple[str, ...]) -> Pairs:
    """The pairs with labels that index `names`; -1 where the class of a pair is not known."""
    if pairs.labels is None:
        found = mentioned(pairs.captions, names)
        return replace(pairs, labels=tuple(-1 if label is None else label for label in found), label_names=names)
    strange = [name for name in pairs.label_names if name not in names]
    if strange:
        raise DataError(f"the pairs have the class '{strange[0]}', which is not among those given: {', '.join(names)}")
    numbers = [names.index(name) for name in pairs.label_names]
    return replace(pairs, labels=tuple(numbers[label] for label in pairs.labels), label_names=names)


def read_templates(path: Path) -> tuple[str, ...]:
    """Templates, one a line. Raises `DataError` for a line without a place for a name."""
    lines = tuple(line.strip() for line in read_utf8(path).splitlines() if line.strip())
    if not lines or any("{}" not in line for line in lines):
        raise DataError(f"{path} needs one template a line, each with {{}} for the name of a class")
    return lines
