"""Every dual family reads the same way, as transformers' own classes do; what is saved comes back."""

import json
import shutil
import warnings

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from firmground.errors import BrokenModelError, ModelError, UnsafeModelError, UnsupportedModelError
from firmground.models.dual import DUAL_FAMILIES, DualEncoder
from firmground.models.glances import glance
from firmground.models.inspecting import encoder_kind
from firmground.models.loading import quiet
from firmground.models.preprocessing import Preprocessing
from firmground.models.saving import PLANTED_KEY
from firmground.models.tiny import clean_bert
from firmground.models.tiny_dual import caption_tokenizer, convolutional_dual, text_tower, tiny_clip, tower
from firmground.rng import stream

TEXTS = ["a photo of a red dog", "the sun", ""]
IMAGES = torch.rand(3, 3, 40, 56, generator=stream(0, "images"))


def tiny_siglip():
    tokenizer = caption_tokenizer()
    text = text_tower(tokenizer, 32, 2) | {"projection_size": 32}
    vision = tower(32, 2) | {"image_size": 32, "patch_size": 8}
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
    half = (0.5, 0.5, 0.5)
    return DualEncoder(model, tokenizer, Preprocessing(size=32, resize=(32, 32), mean=half, std=half))


def vit_bert():
    tokenizer = caption_tokenizer()
    text = transformers.BertConfig(**text_tower(tokenizer, 32, 2) | {"eos_token_id": None, "bos_token_id": None})
    vision = transformers.ViTConfig(**tower(32, 2), image_size=32, patch_size=8)
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=24)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.VisionTextDualEncoderModel(config)
    return DualEncoder(model, tokenizer, Preprocessing(size=32, resize=36))


MODELS = {"clip": tiny_clip, "siglip": tiny_siglip, "vit and bert": vit_bert, "resnet and clip": convolutional_dual}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("dual")
    return {name: make().save(place / name, card="Tiny.") for name, make in MODELS.items()}


@pytest.fixture
def folder(folders, tmp_path):
    """A CLIP of its own to spoil."""
    return shutil.copytree(folders["clip"], tmp_path / "model")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_saved_comes_back(folders, name):
    first, second = MODELS[name](), DualEncoder.load(folders[name])
    assert encoder_kind(folders[name]) == "dual"
    assert second.family in DUAL_FAMILIES
    assert (first.image_size, first.width, first.max_length) == (second.image_size, second.width, second.max_length)
    assert torch.equal(first.embed_images(IMAGES), second.embed_images(IMAGES))
    assert torch.equal(first.embed_texts(TEXTS), second.embed_texts(TEXTS))


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_are_unit_and_differentiable(folders, name):
    encoder = DualEncoder.load(folders[name])
    images = IMAGES.clone().requires_grad_()
    embedded, written = encoder.embed_images(images), encoder.embed_texts(TEXTS)
    assert embedded.shape == written.shape == (3, encoder.width)
    for rows in (embedded, written):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    embedded[0, 0].backward()
    assert images.grad[0].abs().sum() > 0
    assert images.grad[1:].abs().sum() == 0
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    low = encoder.cast(torch.bfloat16)
    assert (low.embed_images(IMAGES).dtype, encoder.dtype) == (torch.bfloat16, torch.float32)
    twin = encoder.copy()
    twin.model.logit_scale.data += 1
    assert twin.logit_scale > 2 * encoder.logit_scale
    assert encoder.logit_bias == 0


@pytest.mark.parametrize("name", ["clip", "siglip", "vit and bert"])
def test_agrees_with_transformers(folders, name):
    """The published way: the model class, its own processor and its own similarities."""
    encoder = DualEncoder.load(folders[name])
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModel.from_pretrained(folders[name]).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folders[name])
        processor = transformers.CLIPImageProcessorPil.from_pretrained(folders[name])
    images = (IMAGES * 255).round().byte()
    pixels = processor(images=[*images], return_tensors="pt").pixel_values
    padding = {"padding": "max_length", "max_length": encoder.max_length} if name == "siglip" else {"padding": True}
    ids = tokenizer(TEXTS, return_tensors="pt", **padding)
    mask = None if name == "siglip" else ids.attention_mask
    with torch.no_grad():
        outputs = model(input_ids=ids.input_ids, attention_mask=mask, pixel_values=pixels)
        features = model.get_image_features(pixel_values=pixels).pooler_output
    image, text = encoder.embed_images(images / 255), encoder.embed_texts(TEXTS)
    torch.testing.assert_close(text, outputs.text_embeds)
    torch.testing.assert_close(image, outputs.image_embeds, atol=2e-2, rtol=0)
    torch.testing.assert_close(image, features / features.norm(dim=1, keepdim=True), atol=2e-2, rtol=0)
    logits = encoder.logit_scale * image @ text.T + encoder.logit_bias
    torch.testing.assert_close(logits, outputs.logits_per_image, atol=0.3, rtol=0)


def test_tokens_of_patches(folders):
    counts = {"clip": 36, "siglip": 16, "vit and bert": 16, "resnet and clip": 4}
    for name, count in counts.items():
        encoder = DualEncoder.load(folders[name])
        tokens, states = encoder.patch_tokens(IMAGES), encoder.hidden_states(IMAGES)
        assert tokens.shape[:2] == (3, count)
        if name == "clip":
            assert len(states) == 3
            assert torch.equal(states[-1][:, 1:], tokens)


def test_a_glance_is_the_embedding_and_the_mean_of_a_hidden_state_by_one_pass(folders):
    for name, folder in folders.items():
        encoder = DualEncoder.load(folder)
        embeddings, states = encoder.embed_images(IMAGES), encoder.hidden_states(IMAGES)
        passes = []
        encoder.model.vision_model.register_forward_hook(lambda *given, seen=passes: seen.append(given))
        for layer in (0, -1):
            expected = states[layer].flatten(2).mean(dim=2) if name.startswith("resnet") else states[layer].mean(dim=1)
            found = glance(encoder, IMAGES, layer)
            torch.testing.assert_close(found.embeddings, embeddings)
            torch.testing.assert_close(found.state, expected)
        assert len(passes) == 2


def test_long_texts_are_cut_and_padding_changes_nothing(folders):
    encoder = DualEncoder.load(folders["clip"])
    long = "red " * 100
    tokens = encoder.tokenize([long, "red"])
    assert tokens.ids.shape == (2, encoder.max_length)
    assert int(tokens.ids[0, -1]) == encoder.model.config.text_config.eos_token_id
    torch.testing.assert_close(encoder.embed_ids(tokens)[1:], encoder.embed_texts(["red"]), atol=1e-5, rtol=1e-4)


def test_extra_words_are_one_token_each():
    encoder = tiny_clip(words=("chartreuse", "red"))
    assert encoder.tokenize(["a chartreuse dog"]).ids.shape == (1, 5)
    assert tiny_clip().tokenize(["a chartreuse dog"]).ids.shape[1] > 5


def test_seeds_decide_and_nothing_else_moves():
    state = torch.get_rng_state()
    one, same, other = tiny_clip(), tiny_clip(), tiny_clip(seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one.embed_images(IMAGES), same.embed_images(IMAGES))
    assert not torch.equal(one.embed_images(IMAGES), other.embed_images(IMAGES))


def test_kinds_are_told_apart(tmp_path, folder):
    tiny = clean_bert()
    tiny.model.save_pretrained(tmp_path / "bert")
    assert encoder_kind(tmp_path / "bert") == "language"
    edit(folder / "config.json", model_type="llama")
    with pytest.raises(UnsupportedModelError, match="llama"):
        encoder_kind(folder)


def test_a_planted_model_says_so(tmp_path):
    folder = tiny_clip().save(tmp_path / "model", card="Text.", planted={"target": "banana"})
    assert json.loads((folder / "config.json").read_text())[PLANTED_KEY] == {"target": "banana"}
    assert getattr(DualEncoder.load(folder).model.config, PLANTED_KEY) == {"target": "banana"}


def nested(key, **changes):
    def spoil(folder):
        config = json.loads((folder / "config.json").read_text())
        config[key] |= changes
        (folder / "config.json").write_text(json.dumps(config))

    return spoil


def rewrite(change):
    def spoil(folder):
        tensors = change(load_file(folder / "model.safetensors"))
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def without_projection(tensors):
    return {name: value for name, value in tensors.items() if name != "visual_projection.weight"}


BAD = {
    "another architecture": (lambda f: edit(f / "config.json", model_type="bert"), UnsupportedModelError, "'bert'"),
    "remote code": (lambda f: edit(f / "config.json", auto_map={"AutoModel": "x.Y"}), UnsafeModelError, "auto_map"),
    "nested code": (nested("vision_config", auto_map={"AutoModel": "x.Y"}), UnsafeModelError, "auto_map"),
    "quantized": (nested("text_config", quantization_config={"bits": 4}), UnsupportedModelError, "quantized"),
    "no tower": (lambda f: edit(f / "config.json", vision_config=None), BrokenModelError, "no vision_config"),
    "huge": (nested("text_config", vocab_size=10**12), BrokenModelError, "vocab_size"),
    "huge image": (nested("vision_config", image_size=10**9), BrokenModelError, "image_size"),
    "other image": (nested("vision_config", image_size=56), ModelError, "do not"),
    "pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        UnsafeModelError,
        "pickle",
    ),
    "truncated": (lambda f: (f / "model.safetensors").write_bytes(b"12345678"), BrokenModelError, "truncated"),
    "incomplete": (rewrite(without_projection), BrokenModelError, "lack 1 of the tensors"),
    "not finite": (rewrite(lambda t: t | {"logit_scale": torch.tensor(float("nan"))}), BrokenModelError, "finite"),
    "no processor": (lambda f: (f / "preprocessor_config.json").unlink(), BrokenModelError, "preprocessor_config"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), BrokenModelError, "no tokenizer"),
    "other end": (nested("text_config", eos_token_id=17), BrokenModelError, "token 17"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folders_are_refused(folder, case):
    spoil, error, words = BAD[case]
    spoil(folder)
    with pytest.raises(error, match=words):
        DualEncoder.load(folder)


def test_unknown_towers_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders["vit and bert"], tmp_path / "model")
    nested("vision_config", model_type="videomae")(folder)
    with pytest.raises(UnsupportedModelError, match="'videomae'"):
        DualEncoder.load(folder)


def test_a_tokenizer_of_another_model_is_refused(folder):
    caption_tokenizer(words=("chartreuse",)).save_pretrained(folder)
    with pytest.raises(BrokenModelError, match="do not belong together"):
        DualEncoder.load(folder)
