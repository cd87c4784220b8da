"""Evasions against plain references, and the traps that released code falls into."""

from __future__ import annotations

import dataclasses
import math

import numpy
import pytest
import scipy.fft
import torch
import torch.nn.functional as F

from firmground.attacks.evasion import (
    DI,
    DR,
    FIA,
    ILPD,
    MI,
    NRD,
    PGD,
    PRM,
    SI,
    SSA,
    TGR,
    TI,
    AttackVLM,
    MAttack,
    PNAPatchOut,
    Reversal,
    XTransfer,
)
from firmground.attacks.evasion._layers import cosines
from firmground.attacks.evasion._search import Optimizer, Search, projected
from firmground.attacks.evasion._views import through, windows
from firmground.attacks.evasion.di import padded
from firmground.attacks.evasion.m_attack import cropped
from firmground.attacks.evasion.perturbed import rounded
from firmground.attacks.evasion.pna_patchout import some_patches
from firmground.attacks.evasion.ssa import cosine_basis
from firmground.attacks.evasion.tgr import regularised
from firmground.attacks.evasion.ti import blurred
from firmground.attacks.evasion.x_transfer import Bandit
from firmground.errors import DataError
from firmground.models.planted_dual import COLOURS, colour_clip
from firmground.models.surrogates import Surrogate, kept, surrogates_of
from firmground.models.tiny_dual import convolutional_dual, tiny_clip
from firmground.rng import stream


@pytest.fixture(scope="module")
def vit():
    return tiny_clip()


@pytest.fixture(scope="module")
def images():
    return (255 * torch.rand(3, 3, 48, 48, generator=stream(0, "images"))).round() / 255


def made(method, encoder, images, **extra):
    return method.perturb(encoder, images, rng=stream(0, "perturb"), **extra)


def layer_list(encoder, images):
    """All hidden states as (batch, places, width), by transformers alone."""
    numbers = encoder.preprocessing
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (numbers.mean, numbers.std))
    states = encoder.model.vision_model(pixel_values=(images - mean) / std, output_hidden_states=True).hidden_states
    return [state.flatten(2).transpose(1, 2) if state.ndim == 4 else state for state in states]


def prm_loop(clean, moved):
    """PRM's loss, token by token."""
    total = torch.zeros(len(clean[0]))
    for before, after in zip(clean, moved, strict=True):
        for i in range(len(before)):
            total[i] += (
                sum(F.cosine_similarity(before[i, t], after[i, t], dim=0) for t in range(before.shape[1]))
                / before.shape[1]
            )
    return total


def nrd_loop(clean, moved):
    """NRD's loss, layer by layer."""
    return -sum((before - after).square().mean(dim=(1, 2)) for before, after in zip(clean, moved, strict=True))


@pytest.mark.parametrize("make", [tiny_clip, lambda: convolutional_dual(channels=(8, 8, 16))])
def test_losses_are_those_of_their_papers(make, images):
    encoder = make()
    clean = layer_list(encoder, images)
    for method, reference in ((PRM, prm_loop), (NRD, nrd_loop)):
        found = made(method(steps=2, step_size=4 / 255), encoder, images)
        assert found.after == pytest.approx(reference(clean, layer_list(encoder, found.images)).tolist(), abs=1e-4)
    found = made(DR(steps=2), encoder, images)
    middle = layer_list(encoder, found.images)[len(clean) // 2]
    patches = middle[:, 1:] if middle.shape[1] == 37 else middle  # a class token before six times six patches
    assert found.after == pytest.approx(patches.flatten(1).std(dim=1).tolist(), abs=1e-4)


def test_prm_takes_layers_and_tokens(vit, images):
    clean = layer_list(vit, images)
    for layers, tokens, part in (
        ((-1,), "all", slice(None)),
        ((0, 2), "patches", slice(1, None)),
        ((1,), "class", slice(1)),
    ):
        found = made(PRM(steps=1, layers=layers, tokens=tokens), vit, images)
        moved = layer_list(vit, found.images)
        expected = prm_loop([clean[i][:, part] for i in layers], [moved[i][:, part] for i in layers])
        assert found.after == pytest.approx(expected.tolist(), abs=1e-4)
    with pytest.raises(DataError, match=r"no layer 7 .*it has 3"):
        made(PRM(layers=(7,)), vit, images)
    with pytest.raises(DataError, match="no class token"):
        made(PRM(tokens="class"), convolutional_dual(channels=(8, 8, 16)), images)


def test_dispersion_falls_it_does_not_rise(vit, images):
    """The sign is flipped in the released code."""
    found = made(DR(steps=6), vit, images)
    before, after = (layer_list(vit, x)[1][:, 1:].flatten(1).std(dim=1) for x in (images, found.images))
    assert (after < before).all()


def test_a_search_from_the_image_itself_stands_still_and_says_so(images):
    """Where the surrogate is exact, the cosine is stationary at the clean image, and signs of nothing are nothing."""
    encoder = colour_clip()
    still = dataclasses.replace(PGD(steps=2, random_start=False))
    flat = torch.full((2, 3, 48, 48), 0.5)
    started = made(PGD(steps=6), encoder, images)
    assert min(b - a for a, b in zip(started.after, started.before, strict=True)) > 1e-3
    surrogate = Surrogate.of(encoder)
    constant = dataclasses.replace(
        surrogate, run=lambda pixels: ((pixels * 0,), F.normalize(pixels.mean((2, 3)) * 0 + 1))
    )
    assert made(still, constant, flat).doubts == (
        "the gradient was zero at every step on 2 of 2 images; start at random, or use float32",
    )


def test_no_gradient_is_lost_at_the_edge_of_the_range(vit):
    """A clamp inside of the forward pass would kill those of black and white pixels."""
    black_and_white = torch.randint(2, (2, 3, 48, 48), generator=stream(0, "pixels")).float()
    found = made(PGD(steps=4), vit, black_and_white)
    assert ((found.images != black_and_white).float().mean(dim=(1, 2, 3)) > 0.3).all()
    leaf = black_and_white.clone().requires_grad_()
    Surrogate.of(vit).embed(leaf + 0.1).sum().backward()
    assert (leaf.grad != 0).float().mean() > 0.9


def test_rounding_stays_within_epsilon_of_images_of_any_level():
    rng = stream(0, "rounding")
    clean, epsilon = torch.rand(64, 3, 4, 4, generator=rng), 3 / 255
    moved = clean + projected(0.1 * torch.randn(clean.shape, generator=rng), clean, epsilon)
    found = rounded(moved, clean, epsilon)
    assert (255 * found - (255 * found).round()).abs().max() < 1e-4
    assert (found - clean).abs().max() <= epsilon + 1e-6
    assert (found - moved).abs().max() <= 1 / 255 + 1e-6
    exact = torch.full((1, 3, 1, 1), 100 / 255)
    assert torch.equal((rounded(exact + 8 / 255, exact, 8 / 255) * 255).round(), torch.full((1, 3, 1, 1), 108.0))


def test_adam_and_momentum_step_as_they_should():
    gradients = torch.randn(5, 2, 3, 4, 4, generator=stream(0, "gradients"))
    leaf = torch.zeros(2, 3, 4, 4, requires_grad=True)
    reference, ours = torch.optim.Adam([leaf], lr=0.1), Optimizer(Search(step_size=0.1, optimizer="adam"), gradients[0])
    delta = torch.zeros(2, 3, 4, 4)
    for gradient in gradients:
        leaf.grad = gradient.clone()
        reference.step()
        delta = ours.step(delta, gradient)
    assert torch.allclose(delta, leaf, atol=1e-5)
    running, delta = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    ours = Optimizer(Search(step_size=0.1, optimizer="momentum", momentum=0.9), gradients[0])
    for gradient in gradients:
        running = 0.9 * running + gradient / gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
        delta = ours.step(delta, gradient)
    assert torch.allclose(ours.mean, running, atol=1e-5)
    assert delta.abs().max() <= 0.5 + 1e-6


def test_towards_a_text_an_image_and_the_next_image(images):
    encoder = colour_clip()
    words, target = (
        encoder.embed_texts(["a photo of a cyan"]),
        torch.tensor(COLOURS["cyan"]).view(1, 3, 1, 1).expand(1, 3, 48, 48),
    )
    for method, extra, goal in (
        (AttackVLM(steps=8, text="a photo of a cyan"), {}, words),
        (AttackVLM(steps=8), {"target": target.float()}, encoder.embed_images(target.float())),
        (AttackVLM(steps=8), {}, encoder.embed_images(images).roll(-1, dims=0)),
        (MAttack(steps=8), {"target": target.float()}, encoder.embed_images(target.float())),
    ):
        found = made(method, encoder, images, **extra)
        before, after = ((encoder.embed_images(x) * goal).sum(dim=1) for x in (images, found.images))
        assert (after > before).all(), method
    with pytest.raises(DataError, match="one image alone has no other to resemble"):
        made(MAttack(), encoder, images[:1])
    with pytest.raises(DataError, match="no text tower"):
        made(AttackVLM(text="a dog"), dataclasses.replace(Surrogate.of(encoder), encoder=None), images)


def test_planted_colours_are_forgotten():
    """On the encoder that knows colours, red images come to mean red less."""
    encoder, red = colour_clip(), torch.tensor(COLOURS["red"]).float()
    pictures = (0.5 + 0.1 * (red - 0.3)).view(1, 3, 1, 1).expand(4, 3, 48, 48)
    text = encoder.embed_texts(["a photo of a red"])
    for method in (PGD(steps=10), MI(steps=10), PRM(steps=10), Reversal(steps=10)):
        found = made(method, encoder, pictures)
        before, after = ((encoder.embed_images(x) * text).sum(dim=1) for x in (pictures, found.images))
        assert before.min() > 0.8
        assert (after < before - 0.005).all(), method


def test_reversal_is_a_cosine_and_the_share_of_what_sets_tokens_apart(vit, images):
    found = made(Reversal(steps=4, noise=0.0, views=0.0, pooled=2.0, step_size=2 / 255), vit, images)
    assert found.before == pytest.approx([3 * (1 + 6.0) + 2.0] * 3, abs=1e-3)
    clean, moved = layer_list(vit, images), layer_list(vit, found.images)
    surrogate = Surrogate.of(vit)
    expected = 6.0 * prm_loop(clean, moved)
    expected += 2.0 * (surrogate.embed(images) * surrogate.embed(found.images)).sum(dim=1)
    for before, after in zip(clean, moved, strict=True):
        mean = before.mean(dim=(0, 1))
        deviation = before.std(dim=(0, 1), correction=0) + 1e-3 * before.std(correction=0)
        z, moved_z = (before - mean) / deviation, (after - mean) / deviation
        for i in range(3):
            expected[i] += (z[i] * moved_z[i]).sum() / (z[i] * z[i]).sum()
    assert found.after == pytest.approx(expected.tolist(), abs=1e-3)
    assert max(found.after) < 23


def test_nesterov_looks_ahead_within_epsilon():
    how = Search(optimizer="nesterov", epsilon=8 / 255, step_size=1 / 255)
    optimizer, delta = Optimizer(how, torch.zeros(1, 3, 4, 4)), torch.zeros(1, 3, 4, 4)
    assert torch.equal(optimizer.ahead(delta), delta)
    for _ in range(40):
        delta = projected(optimizer.step(delta, torch.ones_like(delta)), torch.full_like(delta, 0.5), how.epsilon)
    assert torch.allclose(optimizer.ahead(delta), torch.full_like(delta, -how.epsilon))
    optimizer.mean = 2 * torch.ones_like(delta)
    assert torch.allclose(optimizer.ahead(torch.zeros_like(delta)), torch.full_like(delta, -2 / 255))


def test_reversal_at_views_turns_parts_away(vit, images):
    """With views only, no step looks at the whole; still what every part shows is embedded elsewhere."""
    found = made(Reversal(steps=8, views=1.0, zoom=(1.5, 1.5)), vit, images)
    surrogate, matrices = Surrogate.of(vit), windows(3, (1.5, 1.5), stream(5))
    before, after = (surrogate.embed(through(seen, matrices)) for seen in (images, found.images))
    noise = torch.randint(0, 2, images.shape, generator=stream(6)) * 2.0 - 1
    noisy = surrogate.embed(through((images + found.settings["epsilon"] * noise).clamp(0, 1), matrices))
    assert ((before * after).sum(dim=1) < (before * noisy).sum(dim=1)).all()
    with pytest.raises(DataError, match="zoom"):
        Reversal(zoom=(0.0, 1.0))


def test_views_show_parts_and_the_whole():
    """A view of zoom 2 is half as wide; one of zoom 1 is the image; one of zoom 1/2 has it all on black."""
    images = torch.rand(64, 3, 12, 12, generator=stream(3))
    assert torch.allclose(through(images, windows(64, (1.0, 1.0), stream(4))), images, atol=1e-5)
    near = windows(64, (2.0, 2.0), stream(4))
    assert (near[:, :, :2].diagonal(dim1=1, dim2=2) == 0.5).all()
    assert float(near[:, :, 2].abs().max()) <= 0.5
    assert float(near[:, 0, 2].std()) > 0.2
    far = through(torch.ones(64, 3, 12, 12), windows(64, (0.5, 0.5), stream(4)))
    assert 30 < float(far.sum(dim=(2, 3)).min()) <= float(far.sum(dim=(2, 3)).max()) < 43  # 6 by 6, and its rim
    bright = torch.full((1, 3, 12, 12), 1.2, requires_grad=True)  # beyond white, as noise makes it: still a gradient
    (gradient,) = torch.autograd.grad(through(bright, near[:1]).sum(), [bright])
    assert float(gradient.abs().sum()) > 0


def test_parts_against_references():
    rng = stream(0, "parts")
    basis = cosine_basis(12, torch.zeros(1))
    numbers = numpy.random.default_rng(0).random((12,))
    assert numpy.allclose(basis.numpy() @ numbers, scipy.fft.dct(numbers, norm="ortho"), atol=1e-5)
    impulse = torch.zeros(1, 3, 15, 15)
    impulse[..., 7, 7] = 1
    spread = blurred(impulse, 3)
    assert spread.sum() == pytest.approx(3, abs=1e-4)
    assert spread[0, 0, 7, 7] / spread[0, 0, 7, 8] == pytest.approx(math.exp(0.5), rel=1e-3)
    images = torch.rand(2, 3, 30, 40, generator=rng)
    assert torch.equal(padded(images, 0.0, 0.8, rng), images)
    assert padded(images, 1.0, 0.5, rng).shape == cropped(images, (0.5, 0.9), rng).shape == images.shape
    assert torch.allclose(cropped(images, (1.0, 1.0), rng), images)
    chosen = some_patches(torch.zeros(4, 3, 40, 48), 8, 0.5, rng)
    assert chosen.shape == (4, 1, 40, 48)
    assert (chosen.mean(dim=(1, 2, 3)) == 0.5).all()
    assert (chosen.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).std(dim=4) == 0).all()
    gradient = torch.randn(2, 5, 3, generator=rng)
    kept = regularised(gradient, 0.5)
    assert ((kept == 0).sum(dim=1) == 2).all()
    assert torch.equal(kept[kept != 0], (0.5 * gradient)[kept != 0])
    assert (gradient.gather(1, gradient.argmax(dim=1, keepdim=True)) != 0).all()


def test_attention_is_left_out_of_the_gradient_and_only_while_it_runs(vit, images):
    """PNA's gradient is that of attention maps held fixed; afterwards the encoder's own gradient is back."""
    surrogate, leaf = Surrogate.of(vit), images[:1].clone().requires_grad_()

    def gradient():
        return torch.autograd.grad(surrogate.embed(leaf)[0, :8].sum(), leaf)[0]

    before = gradient()
    made(PNAPatchOut(steps=1), vit, images)
    made(TGR(steps=1), vit, images)
    assert torch.equal(before, gradient())
    from firmground.attacks.evasion._transformers import QUERIES_AND_KEYS, modules_named, outputs_changed

    with outputs_changed(modules_named(surrogate, QUERIES_AND_KEYS, "pna"), torch.Tensor.detach):
        output = surrogate.embed(leaf)
        assert torch.allclose(output, vit.embed_images(leaf), atol=1e-5)
        assert not torch.allclose(before, gradient())


def test_ilpd_shrinks_what_the_middle_block_adds(vit, images):
    """With gamma 1 nothing is shrunk: the attack is MI."""
    for one, other, same in ((ILPD(steps=3, gamma=1.0), MI(steps=3), True), (ILPD(steps=3), MI(steps=3), False)):
        found = torch.equal(made(one, vit, images).images, made(other, vit, images).images)
        assert found is same
    with pytest.raises(DataError, match=r"no block 5 .*it has 2"):
        made(ILPD(block=5), vit, images)


def test_fia_lowers_what_brings_masked_images_back(vit, images):
    """The weights have length one, point to where the cosine grows, and their sum with the features falls."""
    method = FIA(steps=8, copies=8)
    (surrogate,) = surrogates_of(vit)
    block, before = surrogate.blocks[0], surrogate.embed(images).detach()
    weights = method._importance(surrogate, block, images, before, stream(0, "masks"))
    assert torch.allclose(weights.flatten(1).norm(dim=1), torch.ones(len(images)), atol=1e-4)

    def told(seen):
        with kept([block]) as outputs, torch.no_grad():
            surrogate.embed(seen)
        return (weights * outputs[0]).flatten(1).sum(dim=1)

    assert (told(made(method, vit, images).images) < told(images)).all()
    with pytest.raises(DataError, match="dropped"):
        FIA(dropped=1.0)


def test_a_bandit_tries_all_arms_and_then_the_hard_ones():
    bandit = Bandit(4, 0.1)
    for _ in range(60):
        (arm,) = bandit.best(1)
        bandit.learn(arm, 0.9 if arm == 2 else 0.1)
    assert min(bandit.counts) >= 1
    assert max(range(4), key=bandit.counts.__getitem__) == 2
    assert sum(bandit.counts) == 60


def test_one_pattern_fools_on_images_it_was_not_made_on():
    encoders = [colour_clip(), colour_clip(1)]
    drawn = 0.4 + 0.2 * torch.rand(24, 3, 48, 48, generator=stream(0, "grey"))
    method = XTransfer(steps=30, batch_size=8)
    found = made(method, encoders, drawn[:16])
    again = made(method, encoders, drawn[16:], pattern=found.pattern)
    random = method.epsilon * (2 * torch.randint(2, (3, 48, 48), generator=stream(1, "signs")).float() - 1)
    noise = made(method, encoders, drawn[16:], pattern=random)
    assert again.losses == ()
    assert sum(again.after) < sum(noise.after)
    with pytest.raises(DataError, match="from 1 to 2 encoders a step, got 3"):
        made(dataclasses.replace(method, chosen=3), encoders, drawn)


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (PRM, {"scales": (1.0, 0.5)}, r"expected scales as \(least, greatest\) from 0.05 to 4, got \(1.0, 0.5\)"),
        (PRM, {"scales": (0.0, 1.0)}, "from 0.05 to 4"),
        (PRM, {"step_size": math.nan}, "a step_size above 0 and at most 1"),
        (MI, {"momentum": -1.0}, "expected momentum of 0 or more, got -1.0"),
        (DI, {"chance": 1.5}, "expected chance from 0 to 1"),
        (SSA, {"copies": 0}, "expected copies of 1 or more, got 0"),
        (SI, {"copies": 40}, "expected copies from 1 to 8"),
        (TI, {"kernel": -1}, "kernel of 1 or more"),
        (ILPD, {"gamma": math.nan}, "gamma from 0 to 1, got nan"),
        (PNAPatchOut, {"patches": 0.0}, "patches above 0 and at most 1"),
        (Reversal, {"views": 2.0}, "views from 0 to 1"),
    ],
)
def test_settings_that_make_no_sense(kind, settings, said):
    with pytest.raises(DataError, match=said):
        kind(**settings)


def test_cosines_and_their_gradient():
    rng = stream(0, "cosines")
    layer = torch.randn(2, 4, 5, generator=rng, dtype=torch.float64, requires_grad=True)
    units = F.normalize(torch.randn(2, 4, 5, generator=rng, dtype=torch.float64), dim=-1)
    assert torch.allclose(cosines(layer, units), F.cosine_similarity(layer, units, dim=-1))
    assert torch.autograd.gradcheck(lambda x: cosines(x, units), [layer])
    empty = torch.zeros(1, 1, 5, requires_grad=True)
    cosines(empty, units[:1, :1].float()).sum().backward()
    assert empty.grad.isfinite().all()
