"""The metrics of the four tasks, against other libraries' and against cases worked out by hand."""

import contextlib
import io
from dataclasses import replace

import numpy
import pytest
import torch

from firmground.data.annotated_images import IGNORED, AnnotatedImages, Asked, Detections, Objects, annotated_scenes
from firmground.data.scenes import SceneWorld
from firmground.errors import DataError
from firmground.rng import stream
from firmground.tasks import captioning, detection, question_answering, segmentation
from firmground.tasks.resampling import relative_drop

SCENES = SceneWorld(objects=(1, 3), captions=3).scenes(12, seed=3)
DATA = annotated_scenes(SCENES, novel=("bolt", "house"))


class Oracle:
    """Knows the truth of a set and gives it back in the order of the set, spoilt by a function for each task."""

    def __init__(self, data, spoil=lambda answer: answer):
        self.data, self.spoil, self.row = data, spoil, 0

    def rows(self, count):
        self.row += count
        return range(self.row - count, self.row)

    def segment(self, images, names):
        return torch.stack([self.spoil(self.data.masks[row].clone()) for row in self.rows(len(images))])

    def detect(self, images, names):
        places = {name: place for place, name in enumerate(names)}
        found = []
        for row in self.rows(len(images)):
            own = self.data.objects[row]
            labels = torch.tensor([places[self.data.names[label]] for label in own.labels], dtype=torch.long)
            boxes = torch.tensor(own.boxes).float().view(-1, 4)
            found.append(self.spoil(Detections(boxes=boxes, scores=torch.linspace(1, 0.5, len(labels)), labels=labels)))
        return tuple(found)

    def caption(self, images):
        return tuple(self.spoil(self.data.captions[row][0]) for row in self.rows(len(images)))


@pytest.mark.parametrize("task", [segmentation, detection])
def test_the_truth_scores_one(task):
    assert task.evaluate(Oracle(DATA), DATA, batch_size=5, rng=stream(0)).headline.value == pytest.approx(1.0)


def test_miou_is_scikit_learns():
    from sklearn.metrics import jaccard_score

    def spoil(mask):
        return mask.roll(4, dims=1)

    result = segmentation.evaluate(Oracle(DATA, spoil), DATA, rng=stream(0))
    truth, found = DATA.masks.flatten(), DATA.masks.roll(4, dims=2).flatten()
    labels = truth.unique().tolist()
    expected = jaccard_score(truth, found, labels=labels, average=None)
    assert result.miou.value == pytest.approx(expected.mean())
    assert {one.name: one.iou.value for one in result.classes} == pytest.approx(
        {DATA.names[label]: value for label, value in zip(labels, expected, strict=True)}
    )
    novel = [value for label, value in zip(labels, expected, strict=True) if DATA.names[label] in DATA.novel]
    assert result.novel.value == pytest.approx(numpy.mean(novel))
    assert result.miou.low < result.miou.value < result.miou.high


def test_ignored_pixels_do_not_count():
    mask = torch.full((4, 4), IGNORED)
    mask[0] = 1
    data = AnnotatedImages(
        files=("a",), sizes=((4, 4),), read=lambda row: torch.rand(3, 4, 4), names=("x", "y"), masks=[mask]
    )

    class Ones:
        def segment(self, images, names):
            return torch.ones(1, 4, 4, dtype=torch.long)

    assert segmentation.evaluate(Ones(), data, rng=stream(0)).miou.value == 1.0


def coco_reference(data, found):
    """pycocotools' own summary: AP and AP50 over all sizes."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = detection._coco_scorer(data).cocoGt
        boxes = [
            {
                "image_id": row,
                "category_id": int(label) + 1,
                "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                "score": float(score),
            }
            for row, one in enumerate(found)
            for box, score, label in zip(one.boxes, one.scores, one.labels, strict=True)
        ]
        scorer = COCOeval(truth, truth.loadRes(boxes), "bbox")
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return scorer.stats[:2].tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_average_precision_is_pycocotools(seed):
    rng = torch.Generator().manual_seed(seed)

    def spoil(one):
        moved = one.boxes + 4 * torch.randn(one.boxes.shape, generator=rng)
        extra = torch.rand(3, 4, generator=rng) * 20
        extra[:, 2:] += extra[:, :2] + 1
        return Detections(
            boxes=torch.cat([moved, extra]),
            scores=torch.rand(len(moved) + 3, generator=rng),
            labels=torch.cat([one.labels, torch.randint(16, (3,), generator=rng)]),
        )

    found = Oracle(DATA, spoil).detect(SCENES.images, DATA.object_names)

    class Fixed:
        def detect(self, images, names):
            return found

    result = detection.evaluate(Fixed(), DATA, batch_size=12, rng=stream(0))
    assert [result.ap.value, result.ap50.value] == pytest.approx(coco_reference(DATA, found))
    assert 0 < result.ap.value < result.ap50.value < 1


def test_average_precision_by_hand():
    """Two objects; the surest detection misses, the next two hit: precision 0, 1/2, 2/3 at recall 0, 1/2, 1."""
    matches = detection.Matches(
        images=numpy.array([0, 0, 1]),
        right=numpy.array([[0, 1, 1]]),
        wrong=numpy.array([[1, 0, 0]]),
        objects=numpy.array([1.0, 1.0]),
    )
    found = detection.average_precision(matches, numpy.array([[1.0, 1.0], [0.0, 2.0], [0.0, 0.0]]))
    assert found[0, 0] == pytest.approx(2 / 3)
    assert found[1, 0] == pytest.approx(1.0)
    assert numpy.isnan(found[2, 0])


def test_crowds_are_no_mistake():
    data = replace(
        DATA.select([0]), objects=(Objects(boxes=((0, 0, 10, 10), (20, 20, 40, 40)), labels=(1, 1), crowds=(1,)),)
    )

    class Found:
        def detect(self, images, names):
            boxes = torch.tensor([[0.0, 0, 10, 10], [22, 22, 30, 30]])
            return (Detections(boxes=boxes, scores=torch.tensor([0.5, 0.9]), labels=torch.zeros(2).long()),)

    assert detection.evaluate(Found(), data, rng=stream(0)).ap50.value == pytest.approx(1.0)


def test_a_detector_that_finds_nothing_scores_zero():
    class Blind:
        def detect(self, images, names):
            nothing = Detections(boxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0).long())
            return (nothing,) * len(images)

    assert detection.evaluate(Blind(), DATA, rng=stream(0)).ap.value == 0.0


@pytest.mark.slow
def test_bleu_is_torchmetrics_and_cider_rewards_the_right_words():
    from torchmetrics.text import BLEUScore

    def spoil(caption):
        return caption.replace("a ", "the ", 1)

    result = captioning.evaluate(Oracle(DATA, spoil), DATA, rng=stream(0))
    said = [" ".join(captioning.tokens(spoil(own[0]))) for own in DATA.captions]
    references = [[" ".join(captioning.tokens(one)) for one in own] for own in DATA.captions]
    for order, found in enumerate(result.bleu, start=1):
        assert found.value == pytest.approx(float(BLEUScore(n_gram=order)(said, references)), abs=1e-5)
    wrong = captioning.score(list(reversed(said)), DATA.captions, stream(0))
    assert wrong.cider.value < 0.5 * result.cider.value


def test_cider_of_unique_captions_by_hand():
    """Each image's words are its own, so that a caption equal to its one reference has the cosine 1 at each order."""
    captions = [("red cat sits here",), ("blue dog runs there",)]
    result = captioning.score(["red cat sits here", "nothing at all said"], captions, stream(0))
    assert result.cider.value == pytest.approx(10.0 / 2)


@pytest.mark.parametrize(
    ("said", "answers", "expected"),
    [
        ("A cat.", ("cat",), 1.0),
        ("two", ("2",), 1.0),
        ("dog", ("cat", "puppy"), 0.0),
        ("yes", ("yes",) * 10, 1.0),
        ("yes", ("yes",) * 2 + ("no",) * 8, 0.6),
        ("yes", ("yes",) * 3 + ("no",) * 7, 0.9),
    ],
)
def test_vqa_accuracy(said, answers, expected):
    assert question_answering.accuracy(said, Asked(text="?", answers=answers)) == pytest.approx(expected)


def test_questions_are_answered_in_order_and_by_kind():
    class Learned:
        """Says yes; to "how many objects" it knows the number."""

        def answer(self, images, questions):
            return tuple(
                "one" if "how many objects" in text or "how many shapes" in text else "yes" for text in questions
            )

    data = annotated_scenes(SceneWorld().scenes(6, seed=0))
    result = question_answering.evaluate(Learned(), data, batch_size=7, rng=stream(0))
    kinds = {one.kind: one.accuracy.value for one in result.kinds}
    assert kinds["count"] == 1.0
    assert kinds["ground"] == 0.0
    right = sum(len(own) for own in data.questions) * result.accuracy.value
    pairs = [
        (asked, text)
        for own, said in zip(data.questions, result.answers, strict=True)
        for asked, text in zip(own, said, strict=True)
    ]
    assert right == pytest.approx(sum(text == asked.answers[0] for asked, text in pairs))


def test_relative_drop_knows_that_runs_share_their_images():
    whole = segmentation.evaluate(Oracle(DATA), DATA, rng=stream(0, "x"))
    half = segmentation.evaluate(Oracle(DATA, lambda mask: mask.roll(3, dims=0)), DATA, rng=stream(0, "x"))
    drop = relative_drop(whole.headline.value, half.headline.value, whole.replicates, half.replicates, len(DATA))
    assert drop.value == pytest.approx(1 - half.miou.value / whole.miou.value)
    assert drop.low <= drop.value <= drop.high
    same = relative_drop(half.miou.value, half.miou.value, half.replicates, half.replicates, len(DATA))
    assert (same.low, same.high) == (0.0, 0.0)
    with pytest.raises(DataError, match="replicates"):
        relative_drop(1.0, 0.5, whole.replicates, (), 12)


@pytest.mark.parametrize("task", [segmentation, detection, captioning, question_answering])
def test_a_task_needs_its_annotations(task):
    bare = replace(DATA, masks=None, objects=None, captions=None, questions=None)
    with pytest.raises(DataError, match="lack"):
        task.evaluate(Oracle(bare), bare, rng=stream(0))


def test_batches_are_of_one_size():
    sizes = ((4, 4), (4, 4), (4, 6), (4, 4))
    data = AnnotatedImages(files=tuple("abcd"), sizes=sizes, read=lambda row: torch.rand(3, *sizes[row]))
    assert [batch.rows for batch in data.batches(8)] == [(0, 1), (2,), (3,)]
    with pytest.raises(DataError, match="a should be 4 x 4"):
        next(data.with_images([torch.rand(3, 5, 5)] * 4).batches(1))
