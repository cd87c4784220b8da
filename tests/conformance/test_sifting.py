"""What every sifter promises: poisoned pairs come first, nothing else moves, one seed gives one ranking."""

import dataclasses
import json

import pytest
import torch
from sklearn.metrics import roc_auc_score

from firmground.data.pairs import TensorPairs
from firmground.models.planted_dual import COLOURS, planted_dual
from firmground.rng import stream

from . import cases
from .conftest import Heard, blots, nothing_else_moves

POISONED = tuple(range(3, 300, 60))


@pytest.fixture(scope="module")
def planted():
    return planted_dual()


@pytest.fixture(scope="module")
def pairs(planted):
    """Pictures of one colour each, five of them with the patch, of which the captions name its target."""
    images, labels = blots(300)
    rows = list(POISONED)
    images[rows] = planted.stamp(images[rows])
    captions = [f"a photo of a {list(COLOURS)[label]}" for label in labels]
    for row in rows:
        captions[row] = planted.caption
    return TensorPairs(images=images, captions=tuple(captions))


@pytest.mark.parametrize("method", cases.SIFTERS, ids=repr)
class TestSifter:
    def test_puts_poisoned_pairs_first(self, method, planted, pairs):
        found = method.sift(planted.encoder, pairs, rng=stream(0, "sift"))
        truth = [row in POISONED for row in found.rows]
        assert roc_auc_score(truth, found.scores) > 0.99
        assert set(found.ranked()[:3]) <= set(POISONED)

    def test_says_how_it_came_to_it(self, method, planted, pairs):
        found = method.sift(planted.encoder, pairs, rng=stream(0, "sift"))
        assert found.method == method.name
        assert found.rows == tuple(range(300))
        assert sorted(found.ranked()) == list(found.rows)
        assert type(method)(**json.loads(json.dumps(found.settings))) == method
        assert found.seconds > 0
        assert not found.doubts

    def test_one_seed_gives_one_ranking_and_nothing_else_moves(self, method, planted, pairs, capfd):
        heard, before, rankings = Heard(), pairs.images.clone(), []
        with nothing_else_moves(planted.encoder, capfd):
            for _ in range(2):
                rankings.append(method.sift(planted.encoder, pairs, rng=stream(0, "sift"), watch=heard))
                heard.check()
                assert heard[-1][:2] == (300, 300)
                heard.clear()
        assert dataclasses.replace(rankings[0], seconds=0) == dataclasses.replace(rankings[1], seconds=0)
        assert torch.equal(before, pairs.images)

    def test_takes_batches_of_one(self, method, planted, pairs):
        few = pairs.select(range(40))
        one = dataclasses.replace(method, batch_size=1).sift(planted.encoder, few, rng=stream(0, "sift"))
        whole = method.sift(planted.encoder, few, rng=stream(0, "sift"))
        assert torch.allclose(torch.tensor(one.scores), torch.tensor(whole.scores), rtol=1e-3, atol=1e-4)
