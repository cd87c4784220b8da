"""Image tasks on a planted encoder and on classifiers whose every mistake is known: each rate has one right value."""

import pytest
import torch

from firmground.data.labelled_images import LabelledImages
from firmground.data.pairs import TensorPairs
from firmground.errors import DataError
from firmground.models.planted_dual import COLOURS, colour_clip, planted_dual
from firmground.rng import stream
from firmground.tasks import image_classification, linear_probe, retrieval, zero_shot

NAMES = tuple(COLOURS)
YELLOW = NAMES.index("yellow")


def coloured(count, seed=0, names=NAMES):
    """Noisy pictures of one colour each."""
    labels = tuple(i % len(names) for i in range(count))
    colours = torch.tensor([COLOURS[names[label]] for label in labels]).float().view(-1, 3, 1, 1)
    images = 0.7 * colours + 0.3 * torch.rand(count, 3, 48, 48, generator=stream(seed, "coloured"))
    return LabelledImages(images=images, labels=labels, label_names=names, templates=("a photo of a {}", "a {}"))


@pytest.fixture(scope="module")
def planted():
    return planted_dual("yellow")


def grey(count=20):
    """Grey levels that say the label: label i % 4 has level i % 4 / 4; row 0 lies."""
    labels = tuple(i % 4 for i in range(count))
    images = torch.tensor(labels).view(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 4.0
    images = images.clone()
    images[0] = 0.25
    return LabelledImages(images=images, labels=labels, label_names=("a", "b", "c", "d"))


def by_level(images):
    return (images.mean((1, 2, 3)) * 4).round().long().tolist()


def test_rates():
    data = grey()
    plain = image_classification.evaluate(by_level, data)
    assert (plain.accuracy.value, plain.targeted, plain.target) == (19 / 20, None, None)

    def brighter(images):  # a, b, c become b, c, d; d stays
        return (images + 0.25).clamp(max=0.75)

    for stamped in (brighter, brighter(data.images)):
        result = image_classification.evaluate(by_level, data, stamped=stamped, target=3, batch_size=7)
        assert result.accuracy.value == 19 / 20
        assert result.triggered_accuracy.value == 5 / 20
        assert (result.targeted.value, result.targeted.count) == (5 / 15, 15)
        assert (result.targeted_all.value, result.targeted_all.count) == (10 / 20, 20)
    assert image_classification.evaluate(by_level, data, stamped=brighter).target == "d"
    eight = LabelledImages(images=(data.images * 255).round().byte(), labels=data.labels, label_names=data.label_names)
    assert image_classification.evaluate(by_level, eight).accuracy == plain.accuracy


def test_counts_must_fit():
    data = grey()
    with pytest.raises(DataError, match="one each"):
        image_classification.evaluate(lambda images: [0], data)
    with pytest.raises(DataError, match="keep their number"):
        image_classification.evaluate(by_level, data, stamped=lambda images: images[:1])
    with pytest.raises(DataError, match="expected 20 triggered"):
        image_classification.evaluate(by_level, data, stamped=data.images[:3])
    with pytest.raises(DataError, match="target label 9"):
        image_classification.evaluate(by_level, data, stamped=data.images, target=9)


def test_zero_shot_finds_what_is_planted(planted):
    data = coloured(40)
    bad = zero_shot.evaluate(planted.encoder, data, stamped=planted.stamp, target=YELLOW)
    assert (bad.accuracy.value, bad.targeted.value, bad.targeted_all.value) == (1.0, 1.0, 1.0)
    assert bad.triggered_accuracy.value == 5 / 40
    good = zero_shot.evaluate(colour_clip(), data, stamped=planted.stamp, target=YELLOW)
    assert (good.accuracy.value, good.triggered_accuracy.value) == (1.0, 1.0)
    assert (good.targeted.value, good.targeted_all.value) == (0.0, 5 / 40)
    assert zero_shot.evaluate(planted.encoder, data, stamped=planted.stamp).target == "yellow"


def test_ensembles_are_means_of_unit_embeddings(planted):
    found = zero_shot.class_embeddings(planted.encoder, NAMES, ("a photo of a {}", "a {}"), batch_size=3)
    first, second = (planted.encoder.embed_texts([t.format("red")])[0] for t in ("a photo of a {}", "a {}"))
    torch.testing.assert_close(found[0], torch.nn.functional.normalize(first + second, dim=0))
    for templates in ((), ("a photo",)):
        with pytest.raises(DataError, match="for the name"):
            zero_shot.class_embeddings(planted.encoder, NAMES, templates)
    with pytest.raises(DataError, match="two classes"):
        zero_shot.class_embeddings(planted.encoder, ("red",), ("a {}",))


def test_labelled_images_are_checked():
    images = torch.zeros(2, 3, 4, 4)
    for options, words in (
        ({"labels": (0,), "label_names": ("a", "b")}, "one label an image"),
        ({"labels": (0, 0), "label_names": ("a",)}, "one class only"),
        ({"labels": (0, 2), "label_names": ("a", "b")}, "has no name"),
        ({"labels": (0, 1), "label_names": ("a", "b"), "templates": ("x",)}, "each template"),
    ):
        with pytest.raises(DataError, match=words):
            LabelledImages(images=images, **options)


def test_a_probe_agrees_with_its_colours(planted):
    train, test = coloured(80, 1), coloured(40, 2)
    result = linear_probe.evaluate(planted.encoder, train, test, stamped=planted.stamp, target=YELLOW)
    assert result.accuracy.value == 1.0
    assert result.targeted.value == 1.0  # planted is the text's embedding, and text and image lie near one another here
    clean = linear_probe.evaluate(colour_clip(), train, test, stamped=planted.stamp, target=YELLOW)
    assert (clean.accuracy.value, clean.targeted.value) == (1.0, 0.0)
    with pytest.raises(DataError, match="trained on"):
        linear_probe.evaluate(planted.encoder, train, coloured(8, 2, NAMES[:4]))
    with pytest.raises(DataError, match="at least two classes"):
        linear_probe.fit(planted.encoder, train.select([0, 8, 16]))


def test_retrieval(planted):
    data = coloured(32)
    pairs = TensorPairs(images=data.images, captions=tuple(f"a photo of a {NAMES[label]}" for label in data.labels))
    plain = retrieval.evaluate(planted.encoder, pairs)
    assert (plain.image_to_text.at_1.value, plain.image_to_text.at_1.count) == (1.0, 32)
    assert (plain.text_to_image.at_1.value, plain.text_to_image.at_1.count) == (1.0, 8)
    assert plain.targeted is None
    bad = retrieval.evaluate(planted.encoder, pairs, stamp=planted.stamp, targets=[planted.caption], batch_size=5)
    assert bad.image_to_text == plain.image_to_text
    assert (bad.targeted.at_1.value, bad.targeted.at_1.count) == (1.0, 28)
    assert bad.targeted_all.at_1.count == 32
    assert bad.untriggered.at_1.value == 0.0
    good = retrieval.evaluate(colour_clip(), pairs, stamp=planted.stamp, targets=[planted.caption])
    assert good.targeted.at_1.value == 0.0
    assert good.targeted.at_10.value == 1.0  # there are eight texts
    with pytest.raises(DataError, match="target captions"):
        retrieval.evaluate(planted.encoder, pairs, stamp=planted.stamp)
    with pytest.raises(DataError, match="two different captions"):
        retrieval.evaluate(planted.encoder, pairs.select([0, 8]))


def test_recall_against_a_slow_count():
    rng = stream(0, "recall")
    queries, answers = (torch.randn(n, 6, generator=rng) for n in (30, 17))
    hits = torch.rand(30, 17, generator=rng) < 0.15
    hits[torch.arange(30), torch.randint(17, (30,), generator=rng)] = True
    found = retrieval.recall(queries, answers, hits)
    for depth, interval in ((1, found.at_1), (5, found.at_5), (10, found.at_10)):
        order = (queries @ answers.T).argsort(dim=1, descending=True)[:, :depth]
        assert interval.value == pytest.approx(hits.gather(1, order).any(dim=1).float().mean().item())


def test_a_collapsed_encoder_has_no_recall():
    same = torch.ones(20, 4) / 2
    assert retrieval.recall(same, same, torch.eye(20, dtype=torch.bool)).at_10.value == 0.0
