"""Cleaners: their losses against plain references, what they change, and what they refuse."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from firmground.data.pairs import TensorPairs
from firmground.defenses.cleaning import (
    CLEANERS,
    COVERINGS,
    PAR,
    RVPT,
    CleanCLIP,
    ContrastiveFinetune,
    Disarm,
    Restore,
    SupervisedFinetune,
    cover,
)
from firmground.defenses.cleaning.inducers import Inducers, boxes
from firmground.defenses.cleaning.par import pushed
from firmground.defenses.scans._waves import waves
from firmground.errors import DataError
from firmground.models.contrastive import Views, unimodal
from firmground.models.tiny_dual import tiny_clip
from firmground.rng import stream

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1)}
BRIEF = {"epochs": 2, "batch_size": 6, "step_size": 1e-3, "warm_up": 0.5}
SEARCH = {"search_steps": 2, "restarts": 1, "cycles": 2}  # disarm's
METHODS = [  # but rvpt, which trains no weights: test_rvpt.py
    method(**BRIEF | (SEARCH if method is Disarm else {})) for method in CLEANERS if method is not RVPT
]


def tiny():
    return tiny_clip(image_size=16, width=32, layers=1, words=tuple(COLOURS))


def coloured(count=24, labels=True):
    truth = tuple(i % 4 for i in range(count))
    noise = torch.rand(count, 3, 16, 16, generator=stream(0, "coloured"))
    solid = torch.tensor([list(COLOURS.values())[label] for label in truth]).float().view(-1, 3, 1, 1)
    captions = tuple(f"a {list(COLOURS)[label]} picture" for label in truth)
    named = {"labels": truth, "label_names": tuple(COLOURS)} if labels else {}
    return TensorPairs(images=0.8 * solid + 0.2 * noise, captions=captions, **named)


def rows(seed, count=4, width=6):
    return F.normalize(torch.randn(count, width, generator=stream(seed, "rows")), dim=1)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
class TestCleaner:
    @pytest.mark.slow
    def test_gives_back_a_trained_copy(self, method):
        encoder, heard = tiny(), []
        before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
        state = torch.get_rng_state()
        found = method.clean(
            encoder,
            coloured(),
            rng=stream(0, "clean"),
            watch=lambda step, total, stage, **t: stage == method.name and heard.append((step, total)),
        )
        assert torch.equal(state, torch.get_rng_state())
        assert all(torch.equal(before[name], value) for name, value in encoder.model.state_dict().items())
        assert not encoder.model.training
        steps = 4 * (method.epochs + getattr(method, "text_epochs", 0))
        assert heard == [(step, steps) for step in range(1, steps + 1)]
        assert found.steps == steps
        assert found.changed["vision_model"] > 1e-3
        assert (found.changed["text_model"] == 0) == isinstance(method, SupervisedFinetune)
        assert not any(value.requires_grad for value in found.encoder.model.parameters())
        assert type(method)(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.settings.items()}) == method
        assert method.name in found.card()
        again = method.clean(encoder, coloured(), rng=stream(0, "clean"))
        same = zip(found.encoder.model.state_dict().values(), again.encoder.model.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in same)
        assert found.losses == again.losses

    def test_is_a_method_by_form(self, method):
        assert all(field.kw_only for field in dataclasses.fields(method))
        with pytest.raises(dataclasses.FrozenInstanceError):
            method.epochs = 3
        assert eval(repr(method), {type(method).__name__: type(method)}) == method
        settings = json.loads(json.dumps(dataclasses.asdict(method)))
        assert type(method)(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}) == method

    def test_refuses_a_batch_larger_than_the_set(self, method):
        with pytest.raises(DataError, match="a batch of 6 cannot be taken from 5 pairs"):
            method.clean(tiny(), coloured(5), rng=stream(0, "clean"))

    def test_refuses_a_set_of_one_class(self, method):
        red = coloured().select([0, 4, 8, 12, 16, 20])
        with pytest.raises(DataError, match=r"one class|two classes"):
            method.clean(tiny(), red, rng=stream(0, "clean"))


def test_the_family_ends_in_a_tuple():
    assert (CleanCLIP, ContrastiveFinetune, SupervisedFinetune, PAR, RVPT, Restore, Disarm) == CLEANERS
    assert len({method.name for method in CLEANERS}) == len(CLEANERS)


def test_the_unimodal_term_is_in_one_direction():
    images, other, texts, edited = (rows(seed) for seed in range(4))
    views = Views(images=(images, other), texts=(texts, edited), scale=torch.tensor(5.0))
    terms = []
    for anchors, positives in ((images, other), (texts, edited)):
        for i in range(4):
            odds = torch.exp(5 * torch.stack([anchors[i] @ positives[j] for j in range(4)]))
            terms.append(-torch.log(odds[i] / odds.sum()))
    torch.testing.assert_close(unimodal(views), 0.5 * (sum(terms[:4]) + sum(terms[4:])) / 4)


@pytest.mark.slow
def test_cleanclip_without_unimodal_terms_and_augmentation_is_the_control():
    plain = CleanCLIP(**BRIEF, unimodal_weight=0.0).clean(tiny(), coloured(), rng=stream(0, "clean"))
    control = ContrastiveFinetune(**BRIEF).clean(tiny(), coloured(), rng=stream(0, "clean"))
    torch.testing.assert_close(plain.losses["contrastive"], control.losses["contrastive"], rtol=1e-3, atol=1e-4)


def test_pars_distance_is_twice_one_minus_the_cosine():
    now, before = rows(0), rows(1)
    expected = sum(2 - 2 * float(a @ b) for a, b in zip(now, before, strict=True)) / 4
    assert float(pushed(now, before, 4.0)) == pytest.approx(expected, rel=1e-5)
    assert float(pushed(now, now, 2.15)) == pytest.approx(0, abs=1e-6)
    assert float(pushed(now, -now, 4.1)) == pytest.approx(4, rel=1e-5)
    assert float(pushed(now, -now, 2.15)) == 0, "beyond the threshold nothing pushes"


@pytest.mark.slow
def test_par_moves_embeddings_further_than_fine_tuning_does():
    pairs, encoder = coloured(), tiny()
    how = BRIEF | {"epochs": 6, "first_step_size": 3e-3}

    def moved(push):
        found = PAR(**how, push=push).clean(encoder, pairs, rng=stream(0, "clean"))
        return float(pushed(found.encoder.embed_images(pairs.images), encoder.embed_images(pairs.images), 4.0))

    assert moved(2.0) > moved(0.0) + 0.05


def test_a_head_may_start_from_the_names():
    method = SupervisedFinetune(**BRIEF | {"step_size": 1e-9}, start="names")
    found, encoder = method.clean(tiny(), coloured(), rng=stream(0, "clean")), tiny()
    red = encoder.embed_texts(["a photo of a red", "a picture of a red", "an image of a red", "a red"]).mean(dim=0)
    torch.testing.assert_close(found.head[0], F.normalize(red, dim=0), rtol=1e-3, atol=1e-4)


def test_supervised_fine_tuning_learns_its_labels():
    method = SupervisedFinetune(**BRIEF | {"epochs": 8, "step_size": 3e-3})
    found = method.clean(tiny(), coloured(), rng=stream(0, "clean"))
    assert found.losses["classes"] < 1.2 < 1.386
    with pytest.raises(DataError, match="needs labelled images"):
        method.clean(tiny(), coloured(labels=False), rng=stream(0, "clean"))


@pytest.mark.parametrize("family", COVERINGS)
def test_each_covering_changes_images_within_range(family):
    images = torch.rand(30, 3, 24, 20, generator=stream(1, "images"))
    before = images.clone()
    others = tuple(name for name in COVERINGS if name != family)
    first, again = (cover(images, rng=stream(0, "cover"), without=others) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(images, before)
    assert 0 <= first.min() <= first.max() <= 1
    touched = (first != images).flatten(1).any(1)
    assert touched.float().mean() > 0.8
    if family not in ("waves", "warp"):
        shares = (first != images).any(1).flatten(1).float().mean(1)
        assert 3 < (shares < 0.2).sum() < 27 or family == "glyphs", "some on a box, some on the whole"


def test_coverings_are_drawn_with_their_chance():
    images = torch.rand(200, 3, 12, 12, generator=stream(1, "images"))
    touched = (cover(images, rng=stream(0, "cover"), chance=0.3) != images).flatten(1).any(1).float().mean()
    assert 0.18 < touched < 0.42
    assert torch.equal(cover(images, rng=stream(0, "cover"), chance=0.0), images)


def some_inducers():
    """A faint white one, a white patch in a corner, and a wave."""
    masks = torch.full((3, 1, 12, 12), 0.2)
    masks[1] = 0
    masks[1, :, :3, :3] = 1.0
    colours = torch.ones(3, 3, 12, 12)
    colours[2] = waves(12, 1)[0]
    return Inducers(
        masks=masks,
        colours=colours,
        shifts=torch.zeros(3, 2, 12, 12),
        added=torch.tensor([False, False, True]),
        placed=torch.tensor([False, True, False]),
    )


def test_inducers_lie_where_and_as_strongly_as_drawn():
    images, found = torch.full((300, 3, 12, 12), 0.5), some_inducers()
    which = torch.arange(300) % 3
    covered = found.over(images, which, stream(0, "over"))
    assert torch.equal(covered, found.over(images, which, stream(0, "over")))
    assert torch.equal(images, torch.full_like(images, 0.5))
    faint, patch, wave = (covered[which == kind] for kind in range(3))
    assert torch.allclose(faint, faint[:, :1, :1, :1])
    strengths = (faint[:, 0, 0, 0] - 0.5) / 0.5
    assert 0.1 <= float(strengths.min()) < 0.13 < 0.27 < float(strengths.max()) <= 0.3
    assert torch.equal((patch == 1).flatten(1).sum(1), torch.full((100,), 27))
    assert len({tuple((image[0] == 1).nonzero()[0].tolist()) for image in patch}) > 10
    assert torch.allclose(wave.mean(dim=(2, 3)), torch.tensor(0.5), atol=1e-5)
    assert 0.1 * 0.9 < float(wave[:, 0].amax((1, 2)).min()) - 0.5 < float(wave.max()) - 0.5 <= 0.3
    assert found.over(images[:0], which[:0], stream(0, "over")).shape == (0, 3, 12, 12)


def test_boxes_add_the_same_to_an_images_norm():
    shapes = [(0.25, 0.25), (0.5, 0.5), (1.0, 0.5), (1.0, 1.0)]
    masks = boxes(16, shapes, 0.3, stream(0, "boxes"))
    assert [int((mask > 0).sum()) for mask in masks] == [16, 64, 128, 256]
    assert float(masks[0].max()) == 1.0, "no more than opaque"
    norms = masks[1:].square().sum(dim=(1, 2, 3)).sqrt()
    assert torch.allclose(norms, torch.full((3,), 0.3 * 16))


@pytest.mark.slow
def test_disarm_searches_before_each_round_and_counts_on():
    heard = []
    method = Disarm(**BRIEF | {"epochs": 8}, **SEARCH, rounds=3, text_epochs=2)
    assert [round_.epochs for round_ in method._by_round()] == [2, 2, 4]
    found = method.clean(
        tiny(), coloured(), rng=stream(0, "clean"), watch=lambda step, total, stage, **t: heard.append((stage, step))
    )
    assert found.steps == 40
    searches = [i for i, (stage, step) in enumerate(heard) if stage == "searching what gathers images" and step == 1]
    steps = [step for stage, step in heard if stage == "disarm"]
    assert len(searches) == 3
    assert steps == list(range(1, 41))
    assert [heard[i - 1] for i in searches[1:]] == [("disarm", 8), ("disarm", 16)]


@pytest.mark.slow
def test_disarm_teaches_the_texts_last_and_nothing_else_then():
    few = BRIEF | SEARCH
    images, texts = coloured().images, [f"a {name} picture" for name in COLOURS]
    plain, taught = (
        Disarm(**few, text_epochs=epochs).clean(tiny(), coloured(), rng=stream(0, "clean")) for epochs in (0, 6)
    )
    assert torch.equal(plain.encoder.embed_images(images), taught.encoder.embed_images(images))
    assert torch.equal(plain.encoder.embed_texts(texts), tiny().embed_texts(texts))
    assert not torch.equal(taught.encoder.embed_texts(texts), tiny().embed_texts(texts))
    assert plain.changed["text_model"] == 0 < taught.changed["text_model"]
    assert torch.equal(taught.encoder.logit_scale, tiny().logit_scale)
    right = torch.tensor(coloured().labels)

    def chosen(found):
        return (found.encoder.embed_images(images) @ found.encoder.embed_texts(texts).T).argmax(dim=1)

    assert (chosen(taught) == right).float().mean() > (chosen(plain) == right).float().mean()


@pytest.mark.slow
@pytest.mark.parametrize("last", [11, 18], ids=["in a round", "in the texts"])
def test_disarm_goes_on_where_it_was_killed(tmp_path, last):
    method = Disarm(**BRIEF | {"epochs": 4}, **SEARCH, save_every=1, rounds=2, text_epochs=1)
    whole = method.clean(tiny(), coloured(), rng=stream(0, "clean"))

    def stop(step, total, stage, **terms):
        if stage == "disarm" and step == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.clean(tiny(), coloured(), rng=stream(0, "clean"), watch=stop, resume=tmp_path)
    again = method.clean(tiny(), coloured(), rng=stream(0, "clean"), resume=tmp_path)
    same = zip(whole.encoder.model.state_dict().values(), again.encoder.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    assert (again.steps, again.losses) == (whole.steps, whole.losses)


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: PAR(threshold=5.0), r"lie in \[0, 4\]"),
        (lambda: Restore(chance=1.5), "chance in"),
        (lambda: Disarm(found=1.5), "expected found from 0 to 1"),
        (lambda: Disarm(size=0.0), "above 0 and at most 1"),
        (lambda: Disarm(rounds=0), "expected rounds of 1 or more"),
        (lambda: Disarm(text_epochs=-1), "expected text_epochs of 0 or more"),
        (lambda: Restore(without=("dots",)), "leave out some of"),
        (lambda: Restore(without=COVERINGS), "leave out some of"),
        (lambda: CleanCLIP(epochs=0), "at least one epoch"),
        (lambda: CleanCLIP(**BRIEF, edit_rate=0.0).clean(tiny(), coloured(), rng=stream(0, "clean")), "rate of edits"),
    ],
)
def test_bad_settings_are_refused_with_advice(make, advice):
    with pytest.raises(DataError, match=advice):
        make()
