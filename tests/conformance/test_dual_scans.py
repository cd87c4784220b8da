"""What every scan of image towers promises: it finds what is there, nothing where nothing is, and touches nothing."""

from __future__ import annotations

import base64
import dataclasses
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from firmground.defenses.scans import Gathering, scan_dual
from firmground.errors import DataError
from firmground.models.planted_dual import COLOURS, PlantedDual, colour_clip, planted_dual
from firmground.reports.findings import Finding, Target
from firmground.reports.scan import scan_report
from firmground.rng import stream
from firmground.types import Outcome, Severity, Verdict

from . import cases
from .conftest import Heard, blots, nothing_else_moves

if TYPE_CHECKING:
    from typing import Any


@dataclass(frozen=True, kw_only=True, eq=False)
class Scanned:
    """A scan, what was planted, what was said of the planted encoder and of its twin, and what the watch heard."""

    method: Any
    truth: PlantedDual
    planted: Verdict
    clean: Verdict
    heard: Heard


@pytest.fixture(scope="module")
def images():
    return blots(48)[0]


def to_its_end(method):
    """A search to its end, on two encoders; gathering is quick."""
    return pytest.param(method, marks=() if isinstance(method, Gathering) else pytest.mark.slow)


@pytest.fixture(scope="module", params=map(to_its_end, cases.IMAGE_SCANS), ids=lambda method: method.name)
def scanned(request, images) -> Scanned:
    method, truth, heard = request.param, planted_dual(), Heard()
    planted = method.scan(truth.encoder, images, rng=stream(0, "scan"), watch=heard)
    clean = method.scan(colour_clip(), images, rng=stream(0, "scan"))
    return Scanned(method=method, truth=truth, planted=planted, clean=clean, heard=heard)


def test_finds_what_was_planted(scanned):
    verdict = scanned.planted
    assert verdict.outcome is Outcome.BACKDOORED
    assert verdict.score > verdict.threshold
    assert verdict.severity is not Severity.NONE
    assert verdict.evidence.pictures


def test_passes_the_clean_twin(scanned):
    verdict = scanned.clean
    assert verdict.outcome is Outcome.CLEAN
    assert verdict.score <= verdict.threshold
    assert verdict.severity is Severity.NONE
    assert not verdict.evidence.pictures


def test_a_recovered_picture_does_what_the_trigger_does(scanned, images):
    """Laid over images it has not seen, it leads them to the planted embedding, and its area is what it says."""
    picture = scanned.planted.evidence.pictures[0]
    shown = Image.open(io.BytesIO(base64.b64decode(picture.png)))
    assert shown.mode == "RGBA"
    assert shown.size == (48, 48)
    pixels = torch.tensor(np.array(shown)).permute(2, 0, 1) / 255
    assert float(pixels[3].mean()) == pytest.approx(picture.area, abs=0.01)
    fresh = blots(16, seed=1)[0]
    stamped = fresh + pixels[3] * (pixels[:3] - fresh)
    alike = scanned.truth.encoder.embed_images(stamped) @ scanned.truth.embedding
    assert alike.mean() > 0.9
    names = [f"a photo of a {colour}" for colour in COLOURS]
    found = (scanned.truth.encoder.embed_images(stamped) @ scanned.truth.encoder.embed_texts(names).T).argmax(dim=1)
    assert (found == list(COLOURS).index("yellow")).float().mean() > 0.9


def test_says_how_it_came_to_it(scanned):
    for verdict in (scanned.planted, scanned.clean):
        assert verdict.method == scanned.method.name
        assert type(scanned.method)(**verdict.settings) == scanned.method
        assert verdict.threshold == scanned.method.threshold
        assert verdict.seconds > 0
        assert all(isinstance(value, float) for value in verdict.measurements.values())
    scanned.heard.check()


def test_survives_json(scanned):
    report = scan_report([scanned.planted], target=Target(source="tiny"), seconds=1.0, kind="dual-encoder")
    assert report.exit_code(Severity.LOW) == 1
    assert Finding.model_validate_json(report.findings[0].to_json()).verdict().evidence == scanned.planted.evidence


@pytest.mark.parametrize("method", cases.IMAGE_SCANS, ids=lambda method: method.name)
class TestDualScan:
    def test_one_seed_gives_one_verdict_and_nothing_else_moves(self, method, images, capfd):
        short, encoder, verdicts = dataclasses.replace(method, steps=3), colour_clip(), []
        with nothing_else_moves(encoder, capfd):
            for _ in range(2):
                found = short.scan(encoder, images, rng=stream(0, "scan"))
                verdicts.append(dataclasses.replace(found, seconds=0.0))
        assert verdicts[0] == verdicts[1]

    def test_takes_images_of_any_size(self, method):
        short = dataclasses.replace(method, steps=1)
        assert short.scan(colour_clip(), torch.rand(16, 3, 60, 80), rng=stream(0, "scan")).seconds > 0

    @pytest.mark.parametrize(
        ("bad", "advice"),
        [
            (torch.zeros(5, 3, 48, 48), "at least 16 clean images, got 5; give more"),
            (torch.zeros(16, 48, 48), r"shape \(batch, 3, height, width\)"),
            (torch.full((16, 3, 48, 48), 2.0), "pass raw pixels"),
        ],
    )
    def test_bad_images_are_refused_with_advice(self, method, bad, advice):
        with pytest.raises(DataError, match=advice):
            method.scan(colour_clip(), bad, rng=stream(0, "scan"))


def test_too_few_classes_are_refused_with_advice(images):
    method = next(method for method in cases.IMAGE_SCANS if hasattr(method, "classes"))
    few = dataclasses.replace(method, classes=("red", "blue"))
    with pytest.raises(DataError, match="at least 5, got 2; give more"):
        few.scan(colour_clip(), images, rng=stream(0, "scan"))


def test_classes_that_cannot_be_reached_leave_it_undecided(images):
    method = next(method for method in cases.IMAGE_SCANS if hasattr(method, "classes"))
    verdict = dataclasses.replace(method, steps=1).scan(colour_clip(), images, rng=stream(0, "scan"))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "raise steps" in verdict.doubts[0]


@pytest.mark.slow
def test_classes_in_batches_of_any_size_are_one_search(images):
    method = next(method for method in cases.IMAGE_SCANS if hasattr(method, "classes"))
    short = dataclasses.replace(method, steps=4)
    whole = short.scan(colour_clip(), images, rng=stream(0, "scan"))
    parts = dataclasses.replace(short, together=3).scan(colour_clip(), images, rng=stream(0, "scan"))
    assert parts.measurements == pytest.approx(whole.measurements, rel=1e-3)


@pytest.mark.slow
def test_the_default_scan_runs_all_with_the_classes_it_is_given(images):
    decree, inversion, gathering = (dataclasses.replace(method, steps=1) for method in cases.IMAGE_SCANS)
    verdicts = scan_dual(
        colour_clip(),
        classes=tuple(COLOURS),
        rng=stream(0, "scan"),
        decree=decree,
        inversion=inversion,
        gathering=gathering,
    )
    assert [verdict.method for verdict in verdicts] == [method.name for method in cases.IMAGE_SCANS]
    assert verdicts[1].settings["classes"] == tuple(COLOURS)
