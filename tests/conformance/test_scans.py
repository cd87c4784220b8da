"""What every scan promises: it finds what is there, nothing where nothing is, and touches nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch

from firmground.errors import DataError
from firmground.reports.findings import Finding, Target
from firmground.reports.scan import ScanReport, scan_report
from firmground.rng import stream
from firmground.types import Outcome, Severity, Verdict

from . import cases
from .conftest import Heard, nothing_else_moves

if TYPE_CHECKING:
    from firmground.models import tiny


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """A case, what was planted, what was said of the planted encoder and of its twin, and what the watch heard."""

    case: cases.ScanCase
    truth: tiny.Planted
    planted: Verdict
    clean: Verdict
    heard: Heard


def to_its_end(case):
    """A scan of two encoders, one of which, a sweep, is quick."""
    return pytest.param(case, marks=() if case is cases.SCANS[0] else pytest.mark.slow)


@pytest.fixture(scope="module", params=map(to_its_end, cases.SCANS), ids=str)
def scanned(request, texts) -> Scanned:
    case, truth, twin, heard = request.param, request.param.planted(), request.param.clean(), Heard()
    planted = case.method.scan(truth.encoder, texts, rng=stream(0, "scan"), watch=heard)
    clean = case.method.scan(twin, texts, rng=stream(0, "scan"))
    return Scanned(case=case, truth=truth, planted=planted, clean=clean, heard=heard)


def test_finds_what_was_planted(scanned):
    verdict = scanned.planted
    assert verdict.outcome is Outcome.BACKDOORED
    assert verdict.score > verdict.threshold
    assert verdict.severity is not Severity.NONE
    found = {trigger.text for trigger in verdict.evidence.triggers}
    assert len(found & set(scanned.truth.triggers)) >= scanned.case.named, found


def test_passes_the_clean_twin(scanned):
    verdict = scanned.clean
    assert verdict.outcome is Outcome.CLEAN
    assert verdict.score <= verdict.threshold
    assert verdict.severity is Severity.NONE
    assert not verdict.evidence.triggers


def test_evidence_is_what_it_says(scanned):
    encoder, evidence = scanned.truth.encoder, scanned.planted.evidence
    for trigger in evidence.triggers:
        assert trigger.token_ids in (encoder.pieces(trigger.text), encoder.pieces(f" {trigger.text}"))
        assert 0 <= trigger.vector < len(evidence.vectors)
    scores = [trigger.score for trigger in evidence.triggers]
    assert scores == sorted(scores, reverse=True)
    for vector in evidence.vectors:
        nearest = torch.cosine_similarity(torch.tensor(vector.values), scanned.truth.vectors, dim=-1).max()
        assert len(vector.values) == encoder.width
        assert nearest > 0.9, f"no planted vector lies near the recovered one, the nearest at cosine {nearest:.2f}"


def test_says_how_it_came_to_it(scanned):
    for verdict in (scanned.planted, scanned.clean):
        assert verdict.method == scanned.case.method.name
        assert type(scanned.case.method)(**verdict.settings) == scanned.case.method
        assert verdict.threshold == scanned.case.method.threshold
        assert verdict.seconds > 0
    scanned.heard.check()


def test_one_seed_gives_one_verdict_and_nothing_else_moves(scanned, texts, capfd):
    with nothing_else_moves(scanned.truth.encoder, capfd):
        again = scanned.case.method.scan(scanned.truth.encoder, texts, rng=stream(0, "scan"))
    assert dataclasses.replace(again, seconds=0.0) == dataclasses.replace(scanned.planted, seconds=0.0)


def test_survives_json(scanned):
    target = Target(source="tiny")
    report = scan_report([scanned.planted, scanned.clean], target=target, seconds=1.0)
    assert ScanReport.model_validate_json(report.to_json()) == report
    assert report.exit_code(Severity.LOW) == 1
    back = Finding.of(scanned.planted).verdict()
    settings = type(scanned.case.method)(**back.settings)
    assert (settings, dataclasses.replace(back, settings={})) == (
        scanned.case.method,
        dataclasses.replace(scanned.planted, settings={}),
    )


@pytest.mark.parametrize("method", list(dict.fromkeys(case.method for case in cases.SCANS)), ids=lambda m: m.name)
class TestBadInput:
    @pytest.mark.parametrize("few", [["one text only"], ["a"] * 200], ids=["one", "short"])
    def test_is_refused_with_advice(self, method, clean, few, capfd):
        if few[:1] == ["a"] and method.name == "pv-mining":
            pytest.skip("mining puts its vectors into texts of any length")
        with nothing_else_moves(clean, capfd), pytest.raises(DataError, match=r"at least \d+.*got \d+.*give"):
            method.scan(clean, few, rng=stream(0, "scan"))
