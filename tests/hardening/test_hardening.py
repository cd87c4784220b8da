"""Adversarial fine-tuning: it finds what the inner attack is to find, and gives back what it promises."""

import dataclasses

import pytest
import torch

from firmground.data.pairs import TensorPairs
from firmground.defenses.hardening import FARE, HARDENERS, TeCoA
from firmground.defenses.hardening.hardened import Tower, worst
from firmground.errors import DataError
from firmground.models.dual import DualEncoder
from firmground.models.hashing import model_sha256
from firmground.models.tiny_dual import convolutional_dual, tiny_clip
from firmground.rng import stream

COLOURS = ("red", "green", "blue")
BRIEF = {
    "epochs": 3,
    "batch_size": 8,
    "step_size": 1e-3,
    "epsilon": 8 / 255,
    "inner_steps": 3,
    "inner_step_size": 4 / 255,
}


def coloured(count=16, seed=0):
    labels = torch.arange(count) % 3
    images = torch.rand(count, 3, 16, 16, generator=stream(seed)) * 0.3
    images[torch.arange(count), labels] += 0.6
    return TensorPairs(images=images, captions=("",) * count, labels=tuple(labels.tolist()), label_names=COLOURS)


@pytest.fixture(scope="module")
def encoder():
    return tiny_clip(image_size=16, width=32, layers=1)


def moved(encoder, original, how, images):
    """How far the worst images within epsilon embed from where the clean ones did, by the original."""
    before = original.embed_images(images)
    found = worst(how, Tower(encoder), images, lambda now: (now - before).square().sum(dim=1), stream(9))
    return float((encoder.embed_images(found) - before).square().sum(dim=1).mean())


@pytest.mark.slow
@pytest.mark.parametrize("family", [FARE, TeCoA])
def test_a_hardened_encoder(family, encoder, tmp_path):
    method, was = family(**BRIEF), model_sha256(encoder.model)
    found = method.harden(encoder, coloured(), rng=stream(0))
    assert model_sha256(encoder.model) == was
    assert (found.method, found.steps) == (method.name, 6)
    assert family(**found.settings) == method
    new, old = found.encoder.model.state_dict(), encoder.model.state_dict()
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"vision_model", "visual_projection"}
    again = method.harden(encoder, coloured(), rng=stream(0))
    assert model_sha256(again.encoder.model) == model_sha256(found.encoder.model)
    folder = found.encoder.save(tmp_path / "hard", card=found.card())
    assert model_sha256(DualEncoder.load(folder).model) == model_sha256(found.encoder.model)
    assert "8/255" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_fare_holds_embeddings_where_they_were(encoder):
    how = FARE(**BRIEF | {"epochs": 8})
    found = how.harden(encoder, coloured(32), rng=stream(0))
    images = coloured(8, seed=5).images
    assert moved(found.encoder, encoder, how, images) < 0.7 * moved(encoder, encoder, how, images)
    assert found.kept > 0.9


@pytest.mark.slow
def test_tecoa_classifies_perturbed_images(encoder):
    how = TeCoA(**BRIEF | {"epochs": 12, "step_size": 3e-3})
    found = how.harden(encoder, coloured(32), rng=stream(0))
    assert found.losses["tecoa"] < 0.5 * torch.log(torch.tensor(3.0))


def test_the_inner_attack_reaches_the_corner_of_a_linear_loss(encoder):
    """Where the loss is the mean of the pixels, the worst image is epsilon above the clean one everywhere."""
    how = FARE(**BRIEF | {"inner_steps": 6})

    class Pixels(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1)

    clean = torch.full((2, 3, 8, 8), 0.5)
    found = worst(how, Pixels(), clean, lambda now: now.mean(dim=1), stream(0))
    torch.testing.assert_close(found, clean + how.epsilon)
    bright = torch.full((2, 3, 8, 8), 0.99)
    assert float(worst(how, Pixels(), bright, lambda now: now.mean(dim=1), stream(0)).max()) == 1.0


def test_batch_norms_keep_their_statistics():
    encoder = convolutional_dual(image_size=16, channels=(8, 8), width=32, layers=1)
    found = FARE(**BRIEF | {"epochs": 1}).harden(encoder, coloured(), rng=stream(0))
    buffers = dict(encoder.model.named_buffers())
    assert any("running_mean" in name for name in buffers)
    assert all(torch.equal(value, buffers[name]) for name, value in found.encoder.model.named_buffers())


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(encoder, tmp_path):
    method = FARE(**BRIEF | {"epochs": 2, "save_every": 1})
    whole = method.harden(encoder, coloured(), rng=stream(0))

    def kill(step, total, stage, **scalars):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.harden(encoder, coloured(), rng=stream(0), watch=kill, resume=tmp_path)
    again = method.harden(encoder, coloured(), rng=stream(0), resume=tmp_path)
    assert model_sha256(again.encoder.model) == model_sha256(whole.encoder.model)


@pytest.mark.parametrize("family", HARDENERS)
@pytest.mark.parametrize("wrong", [{"epsilon": 0.0}, {"epsilon": 1.5}, {"inner_steps": 0}, {"inner_step_size": 0.0}])
def test_settings_without_sense_are_refused(family, wrong):
    with pytest.raises(DataError, match="expected"):
        family(**wrong)


def test_tecoa_needs_labels(encoder):
    with pytest.raises(DataError, match="FARE needs none"):
        TeCoA(**BRIEF).harden(encoder, dataclasses.replace(coloured(), labels=None), rng=stream(0))
