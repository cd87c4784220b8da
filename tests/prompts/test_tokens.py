"""Prompts of tokens on a tiny vision transformer, against a forward pass that is written out."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import CLIPVisionConfig, ViTConfig, ViTForImageClassification
from visual_scenes import SIZE, coloured, gated

from firmground.attacks.prompts import BadVisualPrompt
from firmground.defenses.prompts import PromptPruning, PromptSmoothing
from firmground.errors import DataError, UnsupportedModelError
from firmground.models.classifiers import ImageClassifier
from firmground.models.preprocessing import Preprocessing
from firmground.prompts.judging import judge
from firmground.prompts.prompted import PromptedClassifier
from firmground.prompts.tokens import FAMILIES, blocks_of, inserted, width_of
from firmground.prompts.visual import PromptShape, VisualPrompt
from firmground.prompts.visual_files import load_prompt, save_prompt
from firmground.prompts.visual_prompting import VisualPrompting
from firmground.rng import stream

PLAIN = Preprocessing(size=SIZE, resize=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)
HOW = VisualPrompting(form="tokens", tokens=3, mapping="frequency", epochs=5, batch_size=16, step_size=0.1)


@pytest.fixture(scope="module")
def base():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ViTConfig(
            image_size=SIZE, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=24, num_labels=4, initializer_range=0.3, attn_implementation="eager",
        )  # fmt: skip
        return ImageClassifier.of_module(ViTForImageClassification(config), 4, PLAIN, source="tiny vit")


@pytest.fixture(scope="module", params=[False, True], ids=["shallow", "deep"])
def fitted(request, base):
    return dataclasses.replace(HOW, deep=request.param).fit(base, coloured(), rng=stream(0, "fit"))


def written_out(base, tokens, images):
    """The transformer's own parts, one after the other, with the tokens put in by hand."""
    model, count = base.module.vit, tokens.shape[1]
    hidden = model.embeddings(PLAIN(images))
    for number, layer in enumerate(model.layers):
        if number < len(tokens):
            kept = hidden[:, :-count] if number else hidden
            hidden = torch.cat([kept, tokens[number].expand(len(images), -1, -1)], dim=1)
        hidden = layer(hidden, None)
    return base.module.classifier(model.layernorm(hidden)[:, 0])


@pytest.mark.parametrize("layers", [1, 2])
def test_they_are_read_as_the_paper_says(base, layers):
    shape = PromptShape(form="tokens", image_size=SIZE, count=3, layers=layers, channels=16)
    tokens = torch.randn(shape.tensor_shape, generator=stream(0, "tokens"))
    images = coloured(5, size=SIZE).images
    mapping = dataclasses.replace(HOW.fit(base, coloured(12), rng=stream(0, "fit")).mapping)
    prompted = PromptedClassifier(base=base, prompt=VisualPrompt(shape=shape, pixels=tokens), mapping=mapping)
    assert torch.allclose(prompted.read(images), written_out(base, tokens, images), atol=1e-5)
    plain = base.logits(images)
    assert not torch.allclose(prompted.read(images), plain, atol=1e-3)
    assert torch.equal(base.logits(images), plain)  # nothing stays behind


def test_they_learn(base, fitted):
    data = coloured()
    start = VisualPrompt(shape=fitted.prompt.shape, pixels=fitted.prompt.shape.start())
    before = judge(dataclasses.replace(fitted.on(base), prompt=start), data, HOW)[1]
    assert judge(fitted.on(base), data, HOW)[1] < before - 0.05
    assert fitted.prompt.pixels.shape == (2 if fitted.settings["deep"] else 1, 3, 16)
    rows = fitted.prompt.pixels[0]
    assert (rows[0] - rows[1]).abs().max() > 0.01  # no two are the same


def test_they_come_back_from_their_file(base, fitted, tmp_path):
    again = load_prompt(save_prompt(fitted, tmp_path / "prompt.safetensors"))
    images = coloured(6).images
    assert torch.equal(again.on(base).logits(images), fitted.on(base).logits(images))
    assert again.prompt.shape == fitted.prompt.shape


def test_they_can_be_poisoned_and_pruned(base):
    attack = BadVisualPrompt(target="bluish", size=0.3, learning=dataclasses.replace(HOW, epochs=1))
    planted = attack.implant(base, coloured(), rng=stream(0, "implant"))
    assert planted.learned.planted["attack"] == "bad-visual-prompt"
    found = PromptPruning(shares=(0.5,), tolerance=1.0).clean(planted.learned, base, coloured(), rng=stream(0, "a"))
    assert (found.learned.prompt.pixels == 0).float().mean() >= 0.5
    with pytest.raises(DataError, match="no pixels to smooth"):
        PromptSmoothing().clean(planted.learned, base, coloured(), rng=stream(0, "a"))


def test_what_is_no_transformer_is_refused(base):
    with pytest.raises(UnsupportedModelError, match="gated is none; take another form"):
        HOW.fit(gated(), coloured(), rng=stream(0, "fit"))
    assert (len(blocks_of(base)), width_of(base)) == (2, 16)
    for wrong in (torch.zeros(3, 1, 16), torch.zeros(1, 1, 8)):
        with pytest.raises(DataError, match="tiny vit has 2 layers of 16"), inserted(base, wrong):
            pass
    with pytest.raises(DataError, match="needs one or more"):
        PromptShape(form="tokens", image_size=SIZE, count=0, layers=1, channels=4)
    assert CLIPVisionConfig.model_type in FAMILIES
