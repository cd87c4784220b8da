"""The attackers of the study of hardening, and what its report makes of records."""

import json

import pytest
import torch

from firmground.errors import DataError
from firmground.rng import stream
from firmground.studies.adaptive import LOSSES, Adaptive, gain, straight_through
from firmground.studies.hardening import ANSWERS, EPSILONS, Case, every, hardening
from firmground.studies.hardening_report import report_hardening
from firmground.studies.runner import Record, case_name


def linear(images):
    """Two classes: how bright an image is, and a half."""
    bright = images.flatten(1).mean(dim=1)
    return 20 * torch.stack([bright, torch.full_like(bright, 0.5)], dim=1)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_attacker_reaches_the_corner_that_is_known(loss):
    """The worst image of a linear classifier is epsilon darker everywhere, and on the grid of 8 bits."""
    clean = torch.full((3, 3, 6, 6), 140 / 255)
    found = Adaptive(epsilon=16 / 255).perturb(linear, clean, torch.zeros(3).long(), loss, rng=stream(0))
    torch.testing.assert_close(found, torch.full_like(clean, 124 / 255))
    assert (linear(found).argmax(dim=1) == 1).all()


def test_gradients_pass_around_what_has_none():
    clean = torch.full((1, 3, 6, 6), 140 / 255)
    rounded = straight_through(lambda images: (images * 15).round() / 15)
    found = Adaptive(epsilon=16 / 255).perturb(
        lambda images: linear(rounded(images)), clean, torch.zeros(1).long(), "margin", rng=stream(0)
    )
    assert float(linear((found * 15).round() / 15).argmax(dim=1)) == 1


def test_a_toll_keeps_the_attacker_back():
    clean = torch.full((1, 3, 6, 6), 140 / 255)

    def toll(images):
        return 1e3 * (images - clean).abs().flatten(1).mean(dim=1)

    found = Adaptive(epsilon=16 / 255, steps=40, step_share=0.05).perturb(
        linear, clean, torch.zeros(1).long(), "margin", rng=stream(0), toll=toll
    )
    assert float((found - clean).abs().mean()) < 3 / 255


def test_gains():
    logits = torch.tensor([[3.0, 1.0, 2.0]])
    assert gain(logits, torch.tensor([0]), "margin").item() == -1.0
    assert gain(logits, torch.tensor([1]), "margin").item() == 2.0
    assert every([[1, 1, 0], [1, 0, 0]]) == [1, 0, 0]


def test_the_grid():
    study = hardening()
    assert len({case_name(study, case) for case in study.cases}) == len(ANSWERS) * len(EPSILONS)


def record(answer, epsilon, clean, oblivious, adaptive):
    right = {
        name: [1] * count + [0] * (100 - count)
        for name, count in (("clean", clean), ("oblivious", oblivious), ("adaptive", adaptive))
    }
    case = json.loads(json.dumps(Case(answer=answer, epsilon=epsilon).__dict__))
    return Record(study="hardening", version=1, case=case, results=right, seconds=1.0)


def test_what_is_bought_back():
    found = report_hardening(
        [record("none", 4, 90, 20, 20), record("fare", 4, 87, 80, 62), record("jpeg", 4, 80, 70, 13)]
    )
    assert found.summary["loss_bought_back"] == pytest.approx(42 / 70)
    assert found.summary["clean_drop"] == pytest.approx(3.0)
    assert found.summary["jpeg/loss_bought_back"] == pytest.approx(-0.1)
    assert found.summary["bare_robust"] == pytest.approx(0.2)
    rows = [line for line in found.markdown.splitlines() if line.startswith("| 4/255")]
    assert [row.split("|")[2].strip() for row in rows] == ["none", "fare", "jpeg"]
    assert "60.0" in rows[1]


def test_without_the_bare_encoder_there_is_nothing_to_say():
    with pytest.raises(DataError, match="bare encoder"):
        report_hardening([record("fare", 4, 87, 80, 62)])
