"""A classifier written by hand that hardly sees without the right prompt, and images that it could tell apart.

It has five classes. Behind a border with more red than blue it names the colour of the inside: class 4 is red, 2 green,
0 blue; behind one with more blue than red it is as wrong as it can be, and behind a grey one it hardly knows.
"""

from __future__ import annotations

import torch

from firmground.data.labelled_images import LabelledImages
from firmground.models.classifiers import ImageClassifier
from firmground.models.preprocessing import Preprocessing
from firmground.rng import stream

SIZE, WIDTH, AJAR = 24, 4, 0.1
TRUTH = {"reddish": 4, "greenish": 2, "bluish": 0}  # what each label is to the classifier


class Gated(torch.nn.Module):
    """Logits 20 * gate * (colour - 1/2) for classes 4, 2, 0, -8 else; the gate: the border's red - blue + `AJAR`.

    A weakness: where the last corner of 4 x 4 pixels inside holds black beside white, the border's green makes class 0.
    """

    def __init__(self, gain: float = 20.0) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        inside = torch.zeros(SIZE, SIZE)
        inside[WIDTH:-WIDTH, WIDTH:-WIDTH] = 1
        border = 1 - inside
        colours = (pixels * inside).sum(dim=(2, 3)) / inside.sum()
        frame = (pixels * border).sum(dim=(2, 3)) / border.sum()
        gate = (frame[:, 0] - frame[:, 2] + AJAR)[:, None]
        seen = self.gain * gate * (colours - colours.mean(dim=1, keepdim=True))
        corner = pixels[:, :, -WIDTH - 4 : -WIDTH, -WIDTH - 4 : -WIDTH]
        checked = (corner.amax(dim=(1, 2, 3)) - corner.amin(dim=(1, 2, 3)))[:, None]  # 1 for black beside white
        lured = self.gain * (frame[:, 1:2] - 0.5) * (checked - 0.7).clamp(min=0) / 0.3
        logits = torch.full((len(pixels), 5), -8.0)
        return logits.index_copy(1, torch.tensor([4, 2, 0]), torch.cat([seen[:, :2], seen[:, 2:] + lured], dim=1))


def gated(gain: float = 20.0, *, source: str = "gated") -> ImageClassifier:
    """The classifier; it normalises with a mean and a deviation, which a prompt must not notice."""
    plain = Preprocessing(size=SIZE, resize=SIZE, filter="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3)
    return ImageClassifier.of_module(Gated(gain), 5, plain, source=source)


def coloured(count: int = 60, seed: int = 0, size: int = 20) -> LabelledImages:
    """Images of one main colour each, neither black nor white, in turn red, green and blue."""
    labels = tuple(i % 3 for i in range(count))
    noise = torch.rand(count, 3, size, size, generator=stream(seed, "coloured"))
    images = 0.3 + 0.2 * noise
    images[torch.arange(count), torch.tensor(labels)] += 0.2
    return LabelledImages(images=images, labels=labels, label_names=tuple(TRUTH))
