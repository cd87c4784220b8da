"""The guard by Mahalanobis distance: its law against an independent one, and what a law of few images is worth."""

import pytest
import torch
from sklearn.covariance import OAS

from firmground.data.labelled_images import LabelledImages
from firmground.defenses.guards.mahalanobis import Mahalanobis, distances, held_out, law
from firmground.errors import DataError
from firmground.models.planted_dual import planted_dual
from firmground.rng import stream


def drawn(count, seed=0, width=6):
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.linspace(1, 3, width).diag() + 0.3
    return torch.randn(count, width, generator=rng) @ mixing + 3


def test_the_law_is_that_of_scikit_learn():
    states, others = drawn(15), drawn(40, seed=1)
    reference = OAS().fit(states.numpy())
    assert distances(others, **law(states)).square().tolist() == pytest.approx(
        reference.mahalanobis(others.numpy()).tolist(), rel=1e-3
    )


def test_of_many_states_it_is_the_plain_distance():
    states = drawn(20_000)
    apart = states[:50] - states.mean(dim=0)
    plain = (apart @ torch.linalg.inv(states.T.cov()) * apart).sum(dim=1).sqrt()
    assert distances(states[:50], **law(states)).tolist() == pytest.approx(plain.tolist(), rel=0.02)


def test_fewer_states_than_numbers_still_make_a_law():
    found = distances(drawn(50, seed=1, width=40), **law(drawn(10, width=40)))
    assert found.isfinite().all()
    assert found.std() < found.mean()


def test_states_without_variance_make_a_law_that_any_other_state_breaks():
    same = law(torch.ones(8, 3))
    assert distances(torch.ones(1, 3), **same).item() == 0
    assert distances(torch.tensor([[1.0, 1.0, 1.1]]), **same).item() > 1000


def test_a_law_of_another_width_is_refused():
    with pytest.raises(DataError, match="a hidden state of 4 numbers does not fit a law of 6"):
        distances(drawn(2, width=4), **law(drawn(9)))


def test_each_state_is_held_against_the_law_of_others():
    states = drawn(24)
    states[5] += 50
    found = held_out(states, 4)
    others = states[[row for row in range(24) if row % 4 != 1]]
    assert found[5] == distances(states[5:6], **law(others))[0]
    assert found.argmax() == 5
    assert found[5] > 3 * distances(states, **law(states))[5], "of a law that it made it would be part"


@pytest.mark.parametrize("folds", [1, 41])
def test_folds_that_leave_nothing_are_refused(folds):
    images = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = LabelledImages(images=images, labels=(0, 1) * 30, label_names=("a", "b"))
    with pytest.raises(DataError, match="2 to 40 folds"):
        Mahalanobis(folds=folds).fit(planted_dual().encoder, data, rng=stream(0, "guard"))
