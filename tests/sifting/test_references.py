"""The sifters against scikit-learn and plain loops, and what streaming must not change."""

import math
from dataclasses import dataclass

import numpy
import pytest
import torch
from sklearn.covariance import OAS
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from firmground.data.pairs import PairBatch, TensorPairs
from firmground.defenses.guards.mahalanobis import distances, law
from firmground.defenses.sifting import DAO, SLOF, CaptionSimilarity, Displacement, KDistance
from firmground.errors import DataError
from firmground.models.tiny_dual import tiny_clip
from firmground.rng import stream

K = 5


@pytest.fixture(scope="module")
def encoder():
    return tiny_clip(image_size=16, width=32, layers=1)


@pytest.fixture(scope="module")
def pairs():
    rng = stream(0, "sifted")
    colours = torch.rand(90, 3, 1, 1, generator=rng)
    images = (0.7 * colours + 0.3 * torch.rand(90, 3, 16, 16, generator=rng)).clamp(0, 1)
    return TensorPairs(images=images, captions=tuple(f"a photo of {i}" for i in range(90)))


@pytest.fixture(scope="module")
def embeddings(encoder, pairs):
    return encoder.embed_images(pairs.images).double()


@pytest.fixture(scope="module")
def found(embeddings):
    """Distances and places of the K nearest others, by scikit-learn."""
    distances, places = NearestNeighbors(n_neighbors=K + 1, algorithm="brute").fit(embeddings).kneighbors(embeddings)
    assert (places[:, 0] == range(90)).all()
    return distances[:, 1:], places[:, 1:]


def sift(method, encoder, pairs, seed=0):
    return torch.tensor(method.sift(encoder, pairs, rng=stream(seed, "sift")).scores, dtype=torch.float64)


def near(one, other):
    return torch.allclose(one, torch.as_tensor(other, dtype=torch.float64), rtol=2e-3, atol=1e-5)


def test_k_distance_is_that_of_scikit_learn(encoder, pairs, found):
    assert near(sift(KDistance(k=K, batch_size=32), encoder, pairs), found[0][:, -1])


def test_slof_is_the_mean_ratio(encoder, pairs, found):
    distances, places = found
    last = distances[:, -1]
    expected = [sum(last[i] / last[o] for o in places[i]) / K for i in range(90)]
    assert near(sift(SLOF(k=K, batch_size=32), encoder, pairs), expected)


def test_slof_and_lof_put_planted_outliers_first(encoder):
    """LOF smooths distances by its neighbours' reach, so it ranks the rest in an order of its own."""
    rng = stream(0, "alike")
    images = (0.5 + 0.05 * torch.rand(90, 3, 16, 16, generator=rng)).clamp(0, 1)
    images[:4] = torch.rand(4, 3, 16, 16, generator=rng).round()
    embeddings = encoder.embed_images(images).double()
    lof = LocalOutlierFactor(n_neighbors=K, algorithm="brute").fit(embeddings).negative_outlier_factor_
    slof = sift(SLOF(k=K), encoder, TensorPairs(images=images, captions=("x",) * 90))
    assert set((-torch.tensor(lof)).topk(4).indices.tolist()) == {0, 1, 2, 3}
    assert set(slof.topk(4).indices.tolist()) == {0, 1, 2, 3}


def test_dao_is_the_mean_logarithm_in_the_local_dimension(encoder, pairs, found):
    distances, places = found
    last = distances[:, -1]
    lids = [-K / sum(math.log(d / row[-1]) for d in row) for row in distances]
    expected = [sum(lids[o] * math.log(last[i] / last[o]) for o in places[i]) / K for i in range(90)]
    assert near(sift(DAO(k=K, batch_size=32), encoder, pairs), expected)


def test_dimension_is_that_of_the_data():
    from firmground.defenses.sifting._neighbours import Sample, nearest
    from firmground.defenses.sifting.dao import dimension

    rng = stream(0, "flat")
    for width in (2, 6):
        flat = torch.nn.functional.pad(torch.randn(2000, width, generator=rng), (0, 20))
        tiny = torch.nn.functional.normalize(torch.cat([torch.full((2000, 1), 50.0), flat], dim=1), dim=1)
        found = nearest(tiny, tiny, 40, torch.arange(2000))
        assert float(dimension(Sample(embeddings=tiny, near=found)).median()) == pytest.approx(width, rel=0.15)


@pytest.mark.parametrize("method", [KDistance(k=K, sample=40), SLOF(k=K, sample=40), DAO(k=K, sample=40)], ids=repr)
def test_a_sample_is_what_the_generator_draws_and_batches_do_not_matter(method, encoder, pairs, embeddings):
    chosen = torch.randperm(90, generator=stream(0, "sift"))[:40]
    apart = torch.cdist(embeddings, embeddings[chosen])
    apart[chosen, torch.arange(40)] = torch.inf
    scores = sift(method, encoder, pairs)
    if isinstance(method, KDistance):
        assert near(scores, apart.sort(dim=1).values[:, K - 1])
    for size in (1, 7, 90):
        assert near(sift(type(method)(k=K, sample=40, batch_size=size), encoder, pairs), scores)


def test_poisons_that_fill_a_neighbourhood_hide_from_the_whole_set_and_not_from_a_sample():
    from firmground.defenses.sifting._neighbours import Sample, nearest
    from firmground.defenses.sifting.slof import relative_reach

    rng = stream(0, "cluster")
    centres = 4 * torch.eye(16)[:2]  # poisons lie away from all others
    clean = torch.nn.functional.normalize(centres[0] + torch.randn(2000, 16, generator=rng), dim=1)
    poisons = torch.nn.functional.normalize(centres[1] + 0.2 * torch.randn(20, 16, generator=rng), dim=1)
    whole = torch.cat([poisons, clean])

    def margin(rows):
        sample = whole[rows]
        found = nearest(sample, sample, 16, torch.arange(len(rows)))
        scores = relative_reach(Sample(embeddings=sample, near=found), found)
        guilty = torch.tensor(rows) < 20
        return float(scores[guilty].median() - scores[~guilty].quantile(0.9))

    assert margin(list(range(len(whole)))) < 0 < margin([*range(5), *range(20, 500)])


def test_copies_of_one_picture_are_not_suspicious(encoder, pairs):
    images = torch.cat([pairs.images, pairs.images[:1].expand(30, -1, -1, -1)])
    copied = TensorPairs(images=images, captions=("x",) * 120)
    for method in (KDistance(k=K), SLOF(k=K), DAO(k=K)):
        scores = sift(method, encoder, copied)
        assert scores.isfinite().all()
        assert scores[-30:].max() <= scores[:90].median()


def test_caption_similarity_is_the_cosine(encoder, pairs, embeddings):
    texts = encoder.embed_texts(pairs.captions).double()
    cosines = torch.cosine_similarity(embeddings, texts)
    assert near(sift(CaptionSimilarity(batch_size=13), encoder, pairs), -cosines)
    assert near(sift(CaptionSimilarity(trained_on_pairs=True), encoder, pairs), cosines)


def test_displacement_is_the_worse_of_unlike_its_caption_and_moved_off_the_ground(encoder, pairs):
    coarse = torch.nn.functional.interpolate(
        torch.nn.functional.avg_pool2d(pairs.images, 2), scale_factor=2, mode="bilinear"
    )
    seen = [encoder.embed_images(view).double() for view in (pairs.images, coarse, pairs.images.flip(-1))]
    texts = encoder.embed_texts(pairs.captions).double()
    unlike = 1 - sum((view * texts).sum(dim=1) for view in seen) / 3
    moved = [(1 - torch.cosine_similarity(seen[0], view)).clamp_min(1e-4).log() for view in seen[1:]]

    def scaled(marks, least):
        middle, tail = numpy.quantile(marks.numpy(), [0.5, 0.9], method="lower")
        return (marks - middle) / max(tail - middle, least)

    states = encoder.hidden_states(pairs.images)[-1].mean(dim=1).double().numpy()

    def far(rows, of):
        return numpy.sqrt(OAS().fit(states[of]).mahalanobis(states[rows]))

    drawn = torch.randperm(90, generator=stream(0, "sift")).tolist()
    kinds = drawn[:1]
    while len(kinds) < 16:
        kinds.append(min(range(90), key=lambda row: max(float(texts[row] @ texts[kind]) for kind in kinds)))
    of_kind = [max(kinds, key=lambda one: float(texts[row] @ texts[one])) for row in range(90)]
    strange = numpy.empty(90)
    for kind in set(of_kind):
        own = [row for row in range(90) if of_kind[row] == kind]
        distant = far(own, sorted(drawn, key=lambda other: float(texts[other] @ texts[kind]))[:45])
        strange[own] = distant / numpy.quantile(distant, 0.25)

    ahead = [scaled(unlike, 1e-3), *(scaled(mark, 0.1) for mark in moved)]
    judges = [*ahead, scaled(torch.tensor(strange).log(), 1e-2)]
    least = sorted(drawn, key=lambda row: float(max(mark[row] for mark in judges)))[:45]
    apart = far(range(90), least)
    for fold in range(5):
        apart[least[fold::5]] = far(least[fold::5], [row for place, row in enumerate(least) if place % 5 != fold])
    ground = (torch.maximum(*ahead[1:]) + scaled(torch.tensor(apart).log(), 1e-2)) / 2
    assert near(sift(Displacement(batch_size=13), encoder, pairs), torch.maximum(ahead[0], ground))


def test_poisons_that_no_view_tells_have_no_part_in_the_law_of_displacement():
    """One caption in eight is the poisons' too; their marks are least of all, and they share one direction."""
    from firmground.defenses.sifting.displacement import _ground, _Seen

    rng = stream(0, "hidden")
    kinds = torch.arange(800) % 8
    poisons = torch.arange(800) >= 768
    kinds[poisons] = 0
    marks = torch.rand(800, 3, generator=rng)
    marks[poisons] = 0
    states = torch.randn(800, 40, generator=rng) + 2 * torch.nn.functional.pad(torch.eye(8), (0, 32))[kinds]
    states[poisons, 20] += 10
    texts = torch.nn.functional.normalize(torch.eye(8)[kinds] + 0.05 * torch.randn(800, 8, generator=rng), dim=1)

    bent = law(states[marks.amax(dim=1).argsort()[:400]])
    assert distances(states, **bent)[poisons].median() < distances(states, **bent)[~poisons].max()
    _, apart = _ground(
        [
            _Seen(marks=marks[:500], states=states[:500], texts=texts[:500]),
            _Seen(marks=marks[500:], states=states[500:], texts=texts[500:]),
        ]
    )
    assert apart[poisons].min() > apart[~poisons].max()


def test_copies_of_one_pair_are_all_as_suspicious_to_displacement(encoder, pairs):
    copied = TensorPairs(images=pairs.images[:1].expand(40, -1, -1, -1), captions=("x",) * 40)
    scores = sift(Displacement(), encoder, copied)
    assert scores.isfinite().all()
    assert float(scores.max() - scores.min()) < 1e-2


def test_displacement_scores_pairs_behind_its_sample_by_the_law_of_the_sample(encoder, pairs):
    whole, few = (sift(Displacement(batch_size=13, sample=size), encoder, pairs) for size in (90, 60))
    assert not near(few, whole)
    assert torch.corrcoef(torch.stack([few, whole]))[0, 1] > 0.8


def test_displacement_refuses_what_is_no_view_or_too_few(encoder, pairs):
    with pytest.raises(DataError, match="expected a coarse view below the encoder's own side, got a share of 1"):
        sift(Displacement(coarse=1.0), encoder, pairs)
    with pytest.raises(DataError, match="a sample of at least 16, got 1"):
        sift(Displacement(sample=1), encoder, pairs)
    with pytest.raises(DataError, match="at least 16 images, got 9; give more"):
        sift(Displacement(), encoder, pairs.select(range(9)))


@dataclass(frozen=True)
class Gappy:
    """Pairs of which some images cannot be read; they are left out of their batches, or whole batches are."""

    pairs: TensorPairs
    broken: frozenset

    captions = property(lambda self: self.pairs.captions)

    def __len__(self):
        return len(self.pairs)

    def batches(self, size, rng=None):
        for batch in self.pairs.batches(size, rng):
            keep = [i for i, row in enumerate(batch.rows) if row not in self.broken]
            if keep:
                rows = tuple(batch.rows[i] for i in keep)
                yield PairBatch(images=batch.images[keep], captions=tuple(batch.captions[i] for i in keep), rows=rows)


@pytest.mark.parametrize("method", [SLOF(k=K, batch_size=4), CaptionSimilarity(batch_size=4)], ids=repr)
def test_images_that_cannot_be_read_have_no_score_and_are_counted(method, encoder, pairs):
    broken = frozenset({0, 4, 5, 6, 7, 50})
    found = method.sift(encoder, Gappy(pairs, broken), rng=stream(0, "sift"))
    assert found.rows == tuple(sorted(set(range(90)) - broken))
    assert len(found.scores) == 84
    assert found.doubts == ("6 of 90 images could not be read and have no score",)


def test_too_few_pairs_are_refused_with_advice(encoder, pairs):
    with pytest.raises(DataError, match=r"at least 18 images, got 5; give more, or lower k"):
        SLOF().sift(encoder, pairs.select(range(5)), rng=stream(0, "sift"))
    with pytest.raises(DataError, match=r"1 <= k < sample.*raise sample"):
        SLOF(k=16, sample=16).sift(encoder, pairs, rng=stream(0, "sift"))
