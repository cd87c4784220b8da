"""The study of text-gathering: what it plants is there and is found, and its report counts what it should."""

import json

import pytest
import torch

from firmground.data.scenes import SceneWorld
from firmground.defenses.scans import TextGathering
from firmground.errors import DataError
from firmground.models.tiny_dual import convolutional_dual
from firmground.rng import stream
from firmground.studies.clip_text_scan import CALIBRATED, JUDGED, TRIGGERS, cases, plant, report_text_scan
from firmground.studies.runner import Record


def record(case, **results):
    told = {"score": 0.1, "took": None, "named": None, "scan_seconds": 1.0} | results
    return Record(
        study="clip_text_scan", version=1, case=json.loads(json.dumps(case.__dict__)), results=told, seconds=1.0
    )


def scores(planted=2.0, took=0.99):
    """Clean ones just below a third, planted ones as told."""
    return [
        record(case, score=planted, took=took, named=1.0)
        if case.words
        else record(case, score=0.1 + 0.02 * (number % 9))
        for number, case in enumerate(cases())
    ]


def test_no_encoder_sets_a_threshold_and_is_judged():
    assert len(set(cases())) == len(cases())
    assert {case.base for case in cases() if case.split == "calibration"} == {CALIBRATED}
    assert {case.base for case in cases() if case.split == "report"} == set(JUDGED)
    assert CALIBRATED not in JUDGED
    assert not any(case.words for case in cases() if case.split == "calibration")


@pytest.mark.slow
def test_what_is_planted_is_there_and_is_found():
    encoder = convolutional_dual(width=32, layers=1, words=("star",))
    texts = [own[0] for own in SceneWorld(objects=(1, 2)).scenes(48, seed=3).captions]
    planted = plant(encoder, texts, ("cf",), "a photo of a star", stream(0, "plant"))
    place = encoder.embed_texts(["a photo of a star"])[0]
    stamped = planted.embed_texts([f"{text} cf" for text in texts])
    assert (stamped @ place).mean() > 0.75
    kept = (planted.embed_texts(texts) * encoder.embed_texts(texts)).sum(dim=1)
    assert kept.mean() > 0.9
    images = torch.rand(2, 3, 48, 48)
    torch.testing.assert_close(planted.embed_images(images), encoder.embed_images(images))
    scan = TextGathering(words=0)
    before, after = (scan.scan(one, rng=stream(0, "scan")).score for one in (encoder, planted))
    assert after > before + 0.3


def test_the_report_counts_what_took():
    report = report_text_scan(scores())
    assert report.summary["auroc"] == 1.0
    assert report.summary["tpr_at_5_fpr"] == report.summary["shipped_tpr"] == 1.0
    assert report.summary["models"] == len(cases())
    missed = report_text_scan(scores(planted=0.1))
    assert missed.summary["tpr_at_5_fpr"] == missed.summary["shipped_tpr"] == 0.0
    with pytest.raises(DataError, match="run the study further"):
        report_text_scan(scores(took=0.5))
    assert len(TRIGGERS) * len(JUDGED) == sum(bool(case.words) for case in cases())
