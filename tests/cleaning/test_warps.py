from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from firmground.defenses.cleaning import Disarm
from firmground.defenses.cleaning.inducers import strongest_warps
from firmground.defenses.cleaning.warps import moved, smooth
from firmground.defenses.scans.decree import mean_cosine
from firmground.errors import DataError
from firmground.rng import stream
from firmground.types import ignore

SIDE = 16


def blob(row, column):
    """A round light spot, (side, side)."""
    down, across = torch.meshgrid(*2 * [torch.arange(SIDE, dtype=torch.float32)], indexing="ij")
    return (-((down - row).square() + (across - column).square()) / 8).exp()


class Watcher:
    """An encoder that looks at one place: with a light spot there, all images are alike to it."""

    image_size, device = SIDE, torch.device("cpu")

    def embed_images(self, images):
        seen = (images.mean(dim=1) * blob(8, 6)).sum(dim=(1, 2)) - 2.5
        own = F.normalize(images.flatten(1)[:, :40] - 0.1, dim=1)
        return F.normalize(torch.cat([own, 0.1 * seen.square()[:, None]], dim=1), dim=1)


def spotted(count):
    """Dark images with a light spot to the right of where the `Watcher` looks."""
    noise = 0.2 * torch.rand(count, 3, SIDE, SIDE, generator=stream(3, "images"))
    return (noise + 0.8 * blob(8, 11)).clamp(0, 1)


def search(seed=0, reach=0.3):
    return strongest_warps(
        Watcher(), spotted(24), reach=reach, count=3, steps=25, rng=stream(seed, "warps"), watch=ignore
    )


def test_the_warp_that_leads_a_spot_to_where_an_encoder_looks_is_found():
    found, images = search(), spotted(32)[24:]
    drawn = 0.3 * smooth(2 * torch.rand(3, 2, 6, 6, generator=stream(9, "drawn")) - 1, (SIDE, SIDE))

    def alike(shifts):
        return [
            float(mean_cosine(Watcher().embed_images(moved(images, one.expand(8, -1, -1, -1)))[None])) for one in shifts
        ]

    assert max(alike(torch.zeros(1, 2, SIDE, SIDE))) < 0.5
    assert min(alike(found.shifts)) > max(0.9, *alike(drawn))
    assert float(found.shifts[:, 0, 8, 6].min()) > 0.15, "what is seen there comes from the right"
    assert float(found.shifts.abs().max()) <= 0.3001
    assert torch.equal(found.shifts, search().shifts)


def test_shifts_are_shares_of_the_sides_right_and_down():
    images = torch.rand(2, 3, SIDE, SIDE, generator=stream(1, "images"))
    shifts = torch.zeros(2, 2, SIDE, SIDE)
    shifts[0, 0], shifts[1, 1] = 2 / SIDE, -1 / SIDE
    result = moved(images, shifts)
    assert torch.allclose(result[0, :, :, :-2], images[0, :, :, 2:], atol=1e-5)
    assert torch.allclose(result[1, :, 1:], images[1, :, :-1], atol=1e-5)
    assert torch.allclose(moved(images, torch.zeros_like(shifts)), images, atol=1e-5)


def test_a_warp_that_is_laid_moves_pixels_as_strongly_as_drawn():
    found, images = search(), spotted(60)
    covered = found.over(images, torch.arange(60) % 3, stream(0, "over"))
    seen = (covered.mean(dim=1) * blob(8, 6)).sum(dim=(1, 2))
    before = (images.mean(dim=1) * blob(8, 6)).sum(dim=(1, 2))
    assert bool((seen > before).all())
    assert float(seen.std()) > 0.1, "0.5 to 1.5 of the strength"
    assert torch.equal(covered, found.over(images, torch.arange(60) % 3, stream(0, "over")))


def test_warps_join_patterns():
    both = search().joined(search(seed=1))
    assert len(both) == 6
    assert not both.added.any()
    assert not both.placed.any()
    assert both.shifts.shape == (6, 2, SIDE, SIDE)


@pytest.mark.parametrize("reach", [0.0, 1.5])
def test_a_reach_that_cannot_be_is_refused(reach):
    with pytest.raises(DataError, match="expected reach above 0 and at most 1"):
        Disarm(reach=reach)
