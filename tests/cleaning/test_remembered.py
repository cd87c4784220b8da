"""Embeddings that a training keeps: those of the encoder, by row, whatever is broken."""

from __future__ import annotations

import io

import torch
from PIL import Image

from firmground.data.pairs import Pairs
from firmground.defenses.cleaning.remembered import images_of, texts_of
from firmground.models.tiny_dual import tiny_clip

WORDS = ("red", "green", "blue", "white")


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 60, 255 - shade)).save(file, "png")
    return file.getvalue()


def test_each_row_has_its_own_and_a_broken_image_none() -> None:
    encoder = tiny_clip(image_size=16, width=32, layers=1, words=WORDS)
    files = [png(20 * row) for row in range(7)]
    files[3] = b"no picture"
    captions = tuple(f"a {WORDS[row % 4]} picture {'of red ' * (row % 3)}" for row in range(7))
    pairs = Pairs(captions=captions, names=captions, read=lambda row: files[row], image_size=16)
    images, texts = images_of(encoder, pairs, 4), texts_of(encoder, captions, 4)
    assert images[3].isnan().all()
    for row in (0, 1, 2, 4, 5, 6):
        torch.testing.assert_close(images[row], encoder.embed_images(pairs.image(row)[None])[0])
    for row, caption in enumerate(captions):
        torch.testing.assert_close(texts[row], encoder.embed_texts([caption])[0])
