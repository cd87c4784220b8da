"""RVPT: what its prompts do to an encoder, and that an encoder with prompts stays one on its way through a folder."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, CLIPModel

from firmground.data.pairs import TensorPairs
from firmground.defenses.cleaning import PAR, RVPT
from firmground.errors import BrokenModelError, DataError, UnsafeModelError, UnsupportedModelError
from firmground.models.dual import DualEncoder
from firmground.models.hashing import model_sha256
from firmground.models.inspecting import encoder_kind
from firmground.models.planted_dual import COLOURS, colour_clip
from firmground.models.prompted_dual import SCHEMA
from firmground.models.surrogates import Surrogate
from firmground.models.tensor_files import write_tensors
from firmground.models.tiny_dual import convolutional_dual, tiny_clip
from firmground.models.token_prompts import attach, attached, layers_of
from firmground.rng import stream
from firmground.tasks.zero_shot import classifier

BRIEF = {"epochs": 2, "batch_size": 8, "tokens": 3, "step_size": 0.02}
TEXTS = ["a photo of a red", "blue"]


def coloured(count=48, seed=0):
    names = tuple(COLOURS)
    labels = tuple(row % len(names) for row in range(count))
    solid = torch.tensor([list(COLOURS.values())[label] for label in labels]).float().view(-1, 3, 1, 1)
    images = 0.8 * solid + 0.2 * torch.rand(count, 3, 48, 48, generator=stream(seed, "coloured"))
    captions = tuple(f"a photo of a {names[label]}" for label in labels)
    return TensorPairs(images=images, captions=captions, labels=labels, label_names=names)


def prompted(layers=2, seed=0):
    encoder = tiny_clip(image_size=16, width=32, layers=2)
    tokens = torch.randn((layers, 3, 32), generator=stream(seed, "tokens"))
    attach(encoder.model.vision_model, tokens, encoder.source)
    return encoder, tokens


@pytest.fixture(scope="module")
def encoder():
    return colour_clip()


@pytest.fixture(scope="module")
def cleaned(encoder):
    return RVPT(**BRIEF | {"epochs": 10}).clean(encoder, coloured(), rng=stream(0, "clean"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return prompted()[0].save(tmp_path_factory.mktemp("prompted") / "model", card="Tiny.", planted={"by": "hand"})


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


@pytest.mark.slow
def test_images_are_read_unlike_before_and_still_told_apart(encoder, cleaned):
    data = coloured(32, seed=1)

    def pooled(model):
        return model.model.vision_model(pixel_values=model.prepare(data.images)).pooler_output

    assert F.cosine_similarity(pooled(encoder), pooled(cleaned.encoder)).mean() < 0.8
    predict = classifier(cleaned.encoder, data.label_names, ("a photo of a {}",))
    assert predict(data.images) == list(data.labels)
    torch.testing.assert_close(encoder.embed_texts(TEXTS), cleaned.encoder.embed_texts(TEXTS))


@pytest.mark.slow
def test_without_repulsion_they_stay_nearer(encoder, cleaned):
    images = coloured(32, seed=1).images
    plain = RVPT(**BRIEF | {"epochs": 10, "repulsion": 0.0}).clean(encoder, coloured(), rng=stream(0, "clean"))

    def far(found):
        return float((1 - (encoder.embed_images(images) * found.encoder.embed_images(images)).sum(dim=1)).mean())

    assert far(cleaned) > 2 * far(plain)


@pytest.mark.slow
def test_the_weights_stay_and_the_encoder_that_came_knows_nothing(encoder, cleaned):
    assert attached(encoder.model.vision_model) is None
    assert attached(cleaned.encoder.model.vision_model).shape == (1, 3, 64)
    before, after = encoder.model.state_dict(), cleaned.encoder.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert set(cleaned.changed.values()) == {0}
    assert cleaned.steps == 60
    again = RVPT(**BRIEF | {"epochs": 10}).clean(encoder, coloured(), rng=stream(0, "clean"))
    assert model_sha256(again.encoder.model) == model_sha256(cleaned.encoder.model) != model_sha256(encoder.model)


def test_few_images_of_each_class_are_drawn(encoder):
    found = RVPT(**BRIEF | {"shots": 2}).clean(encoder, coloured(), rng=stream(0, "clean"))
    assert found.steps == 2 * (2 * 8 // 8)
    everything = RVPT(**BRIEF | {"shots": 0}).clean(encoder, coloured(), rng=stream(0, "clean"))
    assert everything.steps == 2 * 6


def test_prompts_stay_with_copies_and_casts_and_leave_the_images_tokens(encoder):
    found, tokens = prompted()
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(attached(found.model.vision_model), tokens)
    torch.testing.assert_close(found.copy().embed_images(images), found.embed_images(images))
    assert attached(found.cast(torch.bfloat16).model.vision_model).dtype == torch.bfloat16
    plain = tiny_clip(image_size=16, width=32, layers=2)
    shapes = [state.shape for state in plain.hidden_states(images)]
    assert [state.shape for state in found.hidden_states(images)] == shapes
    assert [layer.shape for layer in Surrogate.of(found).features(images).layers] == shapes
    assert found.patch_tokens(images).shape == plain.patch_tokens(images).shape
    assert not torch.allclose(found.embed_images(images), plain.embed_images(images), atol=1e-3)


def test_they_are_read_as_the_paper_says():
    found, tokens = prompted(layers=1)
    tower, images = found.model.vision_model, torch.rand(2, 3, 16, 16)
    hidden = tower.pre_layrnorm(tower.embeddings(found.prepare(images)))
    hidden = torch.cat([hidden, tokens[0].expand(2, -1, -1)], dim=1)
    plain = tiny_clip(image_size=16, width=32, layers=2).model.vision_model
    for layer in layers_of(plain, "plain"):
        hidden = layer(hidden, None)
    expected = tower.post_layernorm(hidden[:, 0])
    torch.testing.assert_close(tower(pixel_values=found.prepare(images)).pooler_output, expected)


def test_a_folder_gives_it_back(saved):
    found, images = prompted()[0], torch.rand(2, 3, 16, 16)
    loaded = DualEncoder.load(saved)
    assert torch.equal(loaded.embed_images(images), found.embed_images(images))
    assert torch.equal(loaded.embed_texts(TEXTS), found.embed_texts(TEXTS))
    assert encoder_kind(saved) == "dual"
    bare = DualEncoder.load(saved / "encoder")
    assert attached(bare.model.vision_model) is None
    card = (saved / "README.md").read_text()
    assert "carries a planted backdoor" in card
    assert "Load this folder, not that one" in card
    again = loaded.save(saved.parent / "again", card="Tiny.")
    assert torch.equal(DualEncoder.load(again).embed_images(images), found.embed_images(images))


def test_transformers_does_not_load_it_without_its_prompts(saved):
    for kind in (AutoModel, CLIPModel):
        with pytest.raises((OSError, ValueError), match=r"config|model"):
            kind.from_pretrained(saved)


def test_it_can_be_cleaned_further(saved):
    data = coloured(16)
    found = PAR(epochs=1, batch_size=8).clean(DualEncoder.load(saved), data, rng=stream(0, "clean"))
    assert attached(found.encoder.model.vision_model) is not None
    with pytest.raises(UnsupportedModelError, match="reads token prompts already"):
        RVPT(**BRIEF).clean(DualEncoder.load(saved), data, rng=stream(0, "clean"))


def test_prompts_of_another_encoder_are_refused(folder):
    shutil.rmtree(folder / "encoder")
    tiny_clip(image_size=16, width=32, layers=2, seed=1).save(folder / "encoder", card="Other.")
    with pytest.raises(BrokenModelError, match="an encoder of other weights"):
        DualEncoder.load(folder)


@pytest.mark.parametrize(
    ("tokens", "schema", "told"),
    [
        (torch.zeros(2, 3, 32), "other/1", "its schema is 'other/1'"),
        (torch.zeros(2, 32), SCHEMA, "no finite numbers of shape"),
        (torch.full((2, 3, 32), torch.nan), SCHEMA, "no finite numbers"),
        (torch.zeros(0, 3, 32), SCHEMA, "no finite numbers of shape"),
        (torch.zeros(2, 3, 16), SCHEMA, "tokens of 16 numbers for 2 layers"),
        (torch.zeros(3, 3, 32), SCHEMA, "tokens of 32 numbers for 3 layers"),
    ],
)
def test_prompts_that_cannot_be_are_refused(folder, tokens, schema, told):
    from firmground.models.loading import weights_sha256

    facts = {"schema": schema, "encoder_sha256": weights_sha256(folder / "encoder")}
    write_tensors(folder / "prompts.safetensors", {"tokens": tokens}, facts, what="prompts")
    with pytest.raises(BrokenModelError, match=told):
        DualEncoder.load(folder)


def test_damaged_folders_are_refused(folder):
    whole = (folder / "prompts.safetensors").read_bytes()
    (folder / "prompts.safetensors").write_bytes(whole[:-8])
    with pytest.raises(BrokenModelError, match="holds no prompts that can be used"):
        DualEncoder.load(folder)
    (folder / "prompts.safetensors").write_bytes(whole)
    shutil.rmtree(folder / "encoder")
    with pytest.raises(BrokenModelError, match=r"no config\.json"):
        DualEncoder.load(folder)
    (folder / "encoder").symlink_to(folder)
    with pytest.raises(UnsafeModelError, match="is a link that leaves the folder"):
        DualEncoder.load(folder)


def test_what_it_cannot_clean_is_refused_in_a_sentence(encoder):
    with pytest.raises(UnsupportedModelError, match=r"is none; take another method, such as disarm"):
        RVPT(**BRIEF).clean(convolutional_dual(), coloured(), rng=stream(0, "clean"))
    unnamed = TensorPairs(images=torch.rand(16, 3, 48, 48), captions=("a", "b") * 8)
    with pytest.raises(DataError, match="rvpt needs labelled images"):
        RVPT(**BRIEF).clean(encoder, unnamed, rng=stream(0, "clean"))
    with pytest.raises(DataError, match="at least one token"):
        RVPT(depth=0)
