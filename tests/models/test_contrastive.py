"""The loss against its formula, one forward pass against several, and runs that are killed and resumed."""

import functools
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from firmground.data.pairs import TensorPairs
from firmground.errors import BrokenModelError, DataError, ModelError, OutputError
from firmground.models.contrastive import Pretrain, Towers, embed_views, info_nce, one_way
from firmground.models.tiny_dual import convolutional_dual, tiny_clip
from firmground.models.training import Training, fit, groups, rate
from firmground.rng import stream
from firmground.types import ignore

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1)}


def tiny(seed=0, width=32):
    return tiny_clip(image_size=16, width=width, layers=1, words=tuple(COLOURS), seed=seed)


def coloured(count=24):
    names = [list(COLOURS)[i % 4] for i in range(count)]
    noise = torch.rand(count, 3, 16, 16, generator=stream(0, "coloured"))
    solid = torch.tensor([COLOURS[name] for name in names]).float().view(-1, 3, 1, 1)
    return TensorPairs(images=0.8 * solid + 0.2 * noise, captions=tuple(f"a {name} picture" for name in names))


def pretrain(**settings):
    brief = {"epochs": 2, "batch_size": 6, "step_size": 1e-3, "warm_up": 2, "save_every": 3}
    return Pretrain(**(brief | settings))


def weights(encoder):
    return dict(encoder.model.state_dict())


def same(one, other):
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


def rows(seed, count=5, width=7):
    return F.normalize(torch.randn(count, width, generator=stream(seed, "rows")), dim=1)


def plain_one_way(anchors, others, scale):
    """- mean over i of log exp(s a_i b_i) / sum over j of exp(s a_i b_j), term by term."""
    terms = []
    for i, anchor in enumerate(anchors):
        odds = [math.exp(scale * float(anchor @ other)) for other in others]
        terms.append(-math.log(odds[i] / sum(odds)))
    return sum(terms) / len(terms)


def test_info_nce_is_its_formula():
    images, texts, scale = rows(0), rows(1), torch.tensor(9.0)
    there, back = plain_one_way(images, texts, 9.0), plain_one_way(texts, images, 9.0)
    assert float(one_way(images, texts, scale)) == pytest.approx(there, rel=1e-5)
    assert float(info_nce(images, texts, scale)) == pytest.approx((there + back) / 2, rel=1e-5)
    assert there != pytest.approx(back, rel=1e-3)


def test_one_forward_pass_is_as_good_as_several():
    encoder, pairs = tiny(), coloured(6)
    other, edited = 1 - pairs.images, ["longer than before: " + caption for caption in pairs.captions]
    views = embed_views(Towers(encoder), [pairs.images, other], [pairs.captions, edited])
    torch.testing.assert_close(views.images[0], encoder.embed_images(pairs.images))
    torch.testing.assert_close(views.images[1], encoder.embed_images(other))
    torch.testing.assert_close(views.texts[0], encoder.embed_texts(pairs.captions))
    torch.testing.assert_close(views.texts[1], encoder.embed_texts(edited))
    assert float(views.scale) == pytest.approx(float(encoder.logit_scale))


def test_training_learns_colours_and_leaves_the_encoder():
    encoder, pairs, heard = tiny(), coloured(), []
    before = {name: value.clone() for name, value in weights(encoder).items()}
    state = torch.get_rng_state()
    trained = pretrain(epochs=8).train(
        encoder, pairs, rng=stream(0, "pretrain"), watch=lambda step, total, stage, **terms: heard.append((step, terms))
    )
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in weights(encoder).items())
    assert [step for step, _ in heard] == list(range(1, 33))
    assert trained.steps == 32
    assert trained.losses["contrastive"] < heard[0][1]["contrastive"] - 0.3
    last = [terms["contrastive"] for _, terms in heard[-10:]]
    assert trained.losses["contrastive"] == pytest.approx(sum(last) / 10)
    assert not trained.encoder.model.training
    assert not any(value.requires_grad or value.grad is not None for value in trained.encoder.model.parameters())


@pytest.mark.slow
def test_one_seed_one_training():
    first, again, other = (pretrain(unimodal_weight=1.0).train(tiny(), coloured(), rng=stream(seed, "pretrain"))
                           for seed in (0, 0, 1))  # fmt: skip
    assert set(first.losses) == {"contrastive", "unimodal"}
    assert same(first.encoder, again.encoder)
    assert not same(first.encoder, other.encoder)


class Killed(BaseException):
    pass


def killed_at(step):
    def watch(now, total, stage, **terms):
        if now == step:
            raise Killed

    return watch


def conv():
    return convolutional_dual(image_size=16, channels=(8, 8, 16, 16), width=32, layers=1)


@functools.cache
def trained_whole(method, make):
    return method.train(make(), coloured(), rng=stream(0, "pretrain"))


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny, conv])
@pytest.mark.parametrize("step", [2, 5, 7])
def test_a_killed_run_resumes_bit_for_bit(tmp_path, make, step):
    method = pretrain(unimodal_weight=0.5)  # 8 steps, 4 an epoch; checkpoints after 3, 6 and 8
    whole = trained_whole(method, make)
    with pytest.raises(Killed):
        method.train(make(), coloured(), rng=stream(0, "pretrain"), watch=killed_at(step), resume=tmp_path / "run")
    steps = []
    resumed = method.train(
        make(), coloured(), rng=stream(0, "pretrain"), resume=tmp_path / "run",
        watch=lambda now, total, stage, **terms: steps.append(now),
    )  # fmt: skip
    assert steps[0] == {2: 1, 5: 4, 7: 7}[step]
    assert same(whole.encoder, resumed.encoder)
    assert whole.losses == resumed.losses
    again = method.train(make(), coloured(), rng=stream(0, "pretrain"), resume=tmp_path / "run")
    assert same(whole.encoder, again.encoder)


@pytest.mark.slow
def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    method, folder = pretrain(), tmp_path / "run"
    whole = method.train(tiny(), coloured(), rng=stream(0, "pretrain"))

    def kill(source, target):
        if "step-00000006" in str(target):
            raise Killed
        Path(source).rename(target)

    monkeypatch.setattr("firmground.drafts.os.replace", kill)
    with pytest.raises(Killed):
        method.train(tiny(), coloured(), rng=stream(0, "pretrain"), resume=folder)
    monkeypatch.undo()
    assert [path.name for path in folder.glob("step-*")] == ["step-00000003"]
    (folder / ".step-00000006.dead").mkdir()  # what is left where nothing runs any more
    resumed = method.train(tiny(), coloured(), rng=stream(0, "pretrain"), resume=folder)
    assert same(whole.encoder, resumed.encoder)
    assert [path.name for path in folder.iterdir()] == ["step-00000008"], "drafts and old checkpoints are removed"


def test_checkpoints_of_others_are_refused(tmp_path):
    pretrain(epochs=1).train(tiny(), coloured(), rng=stream(0, "pretrain"), resume=tmp_path)

    def resume(method, encoder, pairs):
        return method.train(encoder, pairs, rng=stream(0, "pretrain"), resume=tmp_path)

    with pytest.raises(BrokenModelError, match=r"another architecture: .* choose another folder"):
        resume(pretrain(epochs=1), tiny(width=48), coloured())
    with pytest.raises(BrokenModelError, match="another run: its settings"):
        resume(pretrain(epochs=3), tiny(), coloured())
    with pytest.raises(BrokenModelError, match="its pairs is 24, this run's 20"):
        resume(pretrain(epochs=1), tiny(), coloured(20))
    (tmp_path / "step-00000004" / "state.safetensors").write_bytes(b"cut off")
    with pytest.raises(BrokenModelError, match="cannot be read"):
        resume(pretrain(epochs=1), tiny(), coloured())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be saved"):
        pretrain().train(tiny(), coloured(), rng=stream(0, "pretrain"), resume=tmp_path / "file" / "run")


def test_what_is_saved_is_plain(tmp_path):
    pretrain(epochs=1).train(tiny(), coloured(), rng=stream(0, "pretrain"), resume=tmp_path)
    (found,) = tmp_path.iterdir()
    assert sorted(path.name for path in found.iterdir()) == ["state.json", "state.safetensors"]
    assert json.loads((found / "state.json").read_text())["step"] == 4


def test_the_schedule():
    how = Training(step_size=1.0, warm_up=4)
    found = [rate(step, 20, how) for step in range(20)]
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found[4:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 16)) for i in range(16)])
    falling = Training(step_size=0.1, first_step_size=1.0, warm_up=0.5)
    found = [rate(step, 20, falling) for step in range(20)]
    assert found == sorted(found, reverse=True)
    assert found[9] == pytest.approx(0.1)
    assert found[10] == pytest.approx(0.1)
    assert max(rate(step, 6, Training(step_size=1.0, warm_up=50)) for step in range(6)) == 1.0


def test_norms_biases_and_the_logit_scale_do_not_decay():
    encoder = tiny()
    encoder.model.requires_grad_(True)
    decayed, kept = groups(encoder.model, 0.1)
    names = {id(value): name for name, value in encoder.model.named_parameters()}
    assert decayed["weight_decay"] == 0.1
    assert kept["weight_decay"] == 0
    for name in (names[id(value)] for value in kept["params"]):
        assert name.endswith(("bias", "logit_scale", "class_embedding")) or "norm" in name
    assert not any(names[id(value)].endswith("bias") or "norm" in names[id(value)] for value in decayed["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_the_logit_scale_stays_below_a_hundred():
    def upwards(towers, batch, draws):
        return {"up": -towers.model.logit_scale}

    encoder, how = tiny(), Training(epochs=1, batch_size=6, step_size=0.1, warm_up=0)
    encoder.model.requires_grad_(True).logit_scale.data.fill_(4.5)
    fit(Towers(encoder), coloured(), how, upwards, rng=stream(0, "fit"), watch=ignore, stage="test")
    assert encoder.logit_scale.item() == pytest.approx(100)


@pytest.mark.parametrize(
    ("make", "advice", "error"),
    [
        (
            lambda: pretrain(batch_size=25).train(tiny(), coloured(), rng=stream(0, "p")),
            "batch of 25.*24 pairs",
            DataError,
        ),
        (lambda: pretrain(batch_size=1), "batches of at least two", DataError),
        (lambda: pretrain(step_size=-1.0), "expected step_size above 0, got -1.0", DataError),
        (lambda: pretrain(clip=0.0), "expected clip above 0", DataError),
        (
            lambda: pretrain().train(
                tiny(), TensorPairs(images=coloured().images, captions=("a red picture",) * 24), rng=stream(0, "p")
            ),
            "two classes at least",
            DataError,
        ),
        (
            lambda: pretrain(step_size=1e30, clip=1e30, warm_up=0).train(tiny(), coloured(), rng=stream(0, "p")),
            "diverged at step",
            ModelError,
        ),
    ],
)
def test_bad_input_is_refused_with_advice(make, advice, error):
    with pytest.raises(error, match=advice):
        make()
