"""Images of a victim's report: clean, attacked, what was changed, and what the victim makes of each."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any

import numpy
import torch
from PIL import ImageDraw

from firmground.data.annotated_images import BACKGROUND
from firmground.data.encoding import picture, png
from firmground.reports.html import Picture
from firmground.reports.victims import Shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.data.annotated_images import AnnotatedImages, Detections
    from firmground.types import Images

LEAST = 256  # pixels of the shorter side of a picture: small images are enlarged, so that boxes can be seen
SUREST = 10  # boxes that are drawn
CLEAREST = 0.5  # of the difference's largest value, so that it neither vanishes nor saturates


def pictures_of(
    victim: Any, verb: str, data: AnnotatedImages, attacked: AnnotatedImages | None, count: int
) -> tuple[Shown, ...]:
    """The first images, as `Shown`; `verb` is what the victim is asked to do."""
    return tuple(one_of(victim, verb, data, attacked, row) for row in range(min(count, len(data))))


def one_of(victim: Any, verb: str, data: AnnotatedImages, attacked: AnnotatedImages | None, row: int) -> Shown:
    """One image with what there is of it."""
    clean = data.image(row)
    pictures = shown_of(victim, verb, data, row, clean, "clean")
    if attacked is not None:
        other = attacked.image(row)
        change = other - clean
        scale = CLEAREST / max(float(change.abs().max()), 1 / 255)
        difference = enlarged(0.5 + scale * change)
        pictures += shown_of(victim, verb, data, row, other, "attacked")
        pictures.append(Picture(png=png(difference), caption=f"what was changed, x {scale:.3g}"))
    return Shown(name=data.files[row], pictures=tuple(pictures))


def shown_of(victim: Any, verb: str, data: AnnotatedImages, row: int, image: Images, what: str) -> list[Picture]:
    """One image with what the victim says; a mask hides the image, so that it stands by itself beside it."""
    found = [answered(victim, verb, data, row, image, what)]
    return [Picture(png=png(enlarged(image)), caption=what), *found] if verb == "segment" else found


def answered(victim: Any, verb: str, data: AnnotatedImages, row: int, image: Images, what: str) -> Picture:
    """One image with what the victim says drawn on it or written under it."""
    batch = image[None]
    if verb == "segment":
        (mask,) = victim.segment(batch, data.names).cpu()
        seen = [data.names[i] for i in mask.unique().tolist() if data.names[i] != BACKGROUND]
        caption = f"{what}: {', '.join(seen[:8]) or 'background only'}"
        return Picture(png=png(enlarged(overlaid(image, mask, data.names))), caption=caption)
    if verb == "detect":
        (found,) = victim.detect(batch, data.object_names)
        return boxed(image, found, data.object_names, what)
    if verb == "caption":
        (said,) = victim.caption(batch)
        return Picture(png=png(enlarged(image)), caption=f"{what}: {said}")
    asked = (data.questions or ((),) * len(data))[row][:3]
    replies = victim.answer(batch.expand(len(asked), -1, -1, -1), [one.text for one in asked]) if asked else ()
    lines = [f"{one.text} {reply}" for one, reply in zip(asked, replies, strict=True)]
    return Picture(png=png(enlarged(image)), caption=f"{what}: {'; '.join(lines) or 'no question'}")


def overlaid(image: Images, mask: torch.Tensor, names: Sequence[str]) -> Images:
    """The image in grey, with the colour of its class over each pixel."""
    table = torch.tensor([(0.5, 0.5, 0.5) if name == BACKGROUND else colour(i) for i, name in enumerate(names)])
    grey = image.mean(dim=0, keepdim=True)
    return 0.45 * grey + 0.55 * table[mask].permute(2, 0, 1)


def boxed(image: Images, found: Detections, names: Sequence[str], what: str) -> Picture:
    """The image with the surest boxes, thicker where surer."""
    large = enlarged(image)
    scale = large.shape[-1] / image.shape[-1]
    drawn = picture(large)
    draw = ImageDraw.Draw(drawn)
    order = found.scores.argsort(descending=True)[:SUREST].tolist()
    for place in reversed(order):
        box = [float(side) * scale for side in found.boxes[place].tolist()]
        label = int(found.labels[place])
        shade = tuple(round(255 * part) for part in colour(label))
        draw.rectangle(box, outline=shade, width=1 + round(3 * float(found.scores[place])))
        draw.text((box[0] + 3, box[1] + 1), names[label], fill=shade)
    said = [f"{names[int(found.labels[place])]} {float(found.scores[place]):.2f}" for place in order[:4]]
    shown = torch.from_numpy(numpy.array(drawn)).permute(2, 0, 1).float() / 255
    return Picture(png=png(shown), caption=f"{what}: {', '.join(said) or 'nothing'}")


def colour(number: int) -> tuple[float, float, float]:
    """A colour for each class, neighbours far apart."""
    return colorsys.hsv_to_rgb((0.13 + 0.618 * number) % 1.0, 0.75, 0.95)


def enlarged(image: Images) -> Images:
    """An image whose shorter side has at least `LEAST` pixels, by whole pixels."""
    times = max(1, round(LEAST / min(image.shape[-2:])))
    return image.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)
