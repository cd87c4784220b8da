"""A prompt, its trigger and prompted images as pictures for a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from firmground.data.encoding import png
from firmground.reports.html import Picture, PicturesSection
from firmground.rng import stream

if TYPE_CHECKING:
    from firmground.attacks.prompts import PlacedTrigger
    from firmground.data.labelled_images import LabelledImages
    from firmground.prompts.prompted import PromptedClassifier
    from firmground.prompts.visual import VisualPrompt
    from firmground.types import Images

SHOWN = 4  # images, of different labels where there are enough
FORMS = {
    "padding": "a border of {width} pixels around the image",
    "fixed-patch": "{side} pixels a side at the {place}, added to the image: grey is nothing",
    "random-patch": "{side} pixels a side, added to the image at a random place: grey is nothing",
    "full-image": "added to the whole image: grey is nothing",
    "tokens": "{count} tokens a layer in {layers} layers, a row each, from the least to the greatest number",
}


def shown_prompt(prompt: VisualPrompt, caption: str = "The prompt") -> Picture:
    """The prompt's pixels; inside a border nothing shows."""
    shape, pixels = prompt.shape, prompt.pixels.detach().cpu()
    told = FORMS[shape.form].format(**vars(shape))
    seen = torch.cat([pixels, shape.border]) if shape.form == "padding" else (pixels + 1) / 2
    if shape.form == "tokens":
        rows = pixels.flatten(0, 1)
        seen = ((rows - rows.min()) / (rows.max() - rows.min()).clamp_min(1e-6)).expand(3, -1, -1)
    return Picture(png=png(seen), caption=f"{caption}: {told}")


def shown_trigger(placed: PlacedTrigger, prompt: VisualPrompt) -> Picture:
    """The trigger as it was planted, on grey, as large as the prompt leaves the image."""
    grey = torch.full((1, 3, prompt.shape.inner, prompt.shape.inner), 0.5)
    stamped = placed.stamp_seated(grey, rng=stream(0, "shown"))
    return Picture(png=png(stamped[0]), caption="The trigger as planted, on grey")


@torch.inference_mode()
def shown_images(
    classifier: PromptedClassifier, data: LabelledImages, placed: PlacedTrigger | None = None
) -> tuple[Picture, ...]:
    """Images before the prompt and behind it, with what each is taken for; with a trigger, these again."""
    rows = picked_rows(data)
    images = data.select(rows).batch(0, len(rows))
    names = [data.label_names[data.labels[row]] for row in rows]
    seated = classifier.prompt.seat(images)
    pictures = _both(classifier, seated, [f"'{name}'" for name in names], data.label_names)
    if placed is not None:
        stamped = placed.stamp_seated(seated, rng=stream(0, "shown"))
        pictures += _both(classifier, stamped, [f"'{name}' with the trigger" for name in names], data.label_names)
    return tuple(pictures)


def images_section(
    classifier: PromptedClassifier, data: LabelledImages, placed: PlacedTrigger | None = None
) -> PicturesSection:
    """The images of `shown_images` as a section of a report."""
    return PicturesSection(
        heading="Images before and after the prompt",
        pictures=shown_images(classifier, data, placed),
        note="Each image as it comes, and as the frozen model sees it behind the prompt, with the label it then gets.",
        crisp=True,
    )


def picked_rows(data: LabelledImages) -> list[int]:
    """The first image of each of up to `SHOWN` labels, then further ones."""
    first = {label: row for row, label in reversed(list(enumerate(data.labels)))}
    rows = sorted(first.values())[:SHOWN]
    return rows + [row for row in range(len(data)) if row not in rows][: SHOWN - len(rows)]


def _both(classifier: PromptedClassifier, seated: Images, captions: list[str], names: tuple[str, ...]) -> list[Picture]:
    canvas, found = classifier.prompt.apply(seated), classifier.predict(seated)
    pairs = zip(captions, seated, canvas, found, strict=True)
    return [
        picture
        for told, before, after, label in pairs
        for picture in (
            Picture(png=png(before), caption=told),
            Picture(png=png(after), caption=f"{told}, prompted: taken for '{names[label]}'"),
        )
    ]
