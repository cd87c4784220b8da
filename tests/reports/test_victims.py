"""The report on a victim: what its headline says, and how clean and attacked stand side by side."""

from __future__ import annotations

import pytest

from firmground.reports.html import Picture, html
from firmground.reports.victims import Measured, Shown, VictimReport, victim_page


def measured(value):
    return Measured(value=value, low=value, high=value, count=9)


def report(clean=0.5, attacked=None, drop=None):
    return VictimReport(
        task="segmentation",
        victim="clipseg",
        images_from="scenes",
        attacked_from=None if attacked is None else "attacked",
        images=9,
        seed=0,
        clean={"miou": measured(clean)},
        attacked=None if attacked is None else {"miou": measured(attacked)},
        drop=None if drop is None else measured(drop),
        seconds=1.0,
    )


@pytest.mark.parametrize(
    ("told", "headline"),
    [
        (report(), "mIoU 50.0 (50.0 to 50.0)."),
        (report(attacked=0.1, drop=0.8), "mIoU falls by 80 %."),
        (report(attacked=0.501, drop=-0.002), "mIoU does not fall."),
        (report(attacked=0.6, drop=-0.2), "mIoU does not fall."),
        (report(clean=0.0, attacked=0.0), "mIoU is 0 on clean images: there is nothing to lose."),
    ],
)
def test_the_headline_says_what_was_lost(told, headline):
    assert victim_page(told, ()).headline == headline


def test_the_pictures_of_one_image_stand_in_one_row_and_the_attack_has_the_colour_of_harm():
    shown = Shown(name="a.png", pictures=tuple(Picture(png=b"x", caption=str(i)) for i in range(5)))
    page = html(victim_page(report(attacked=0.1, drop=0.8), (shown,)))
    assert "repeat(5, minmax(0, 14rem))" in page
    bars = page[page.index("What the attack does") : page.index("Whiskers")]
    assert bars.index('class="is"') < bars.index('class="was"')
