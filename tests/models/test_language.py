"""Every family reads the same way, bare or under a prompt; what is saved comes back."""

import json
import warnings

import peft
import pytest
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from firmground.errors import AdapterError, OutputError, UnsafeModelError
from firmground.models.language import FAMILIES, LanguageEncoder
from firmground.models.loading import quiet, weights_sha256
from firmground.models.saving import save_encoder

TEXTS = ["the quick fox", "a red balloon floats over the village"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_ids_and_embeddings_alike(family_folder, family):
    encoder = LanguageEncoder.load(family_folder(family))
    tokens = encoder.tokenize(TEXTS)
    hidden = encoder.hidden(tokens)
    assert hidden.shape == (*tokens.ids.shape, encoder.width)
    real = tokens.mask.bool()
    embedded = encoder.hidden_from_embeddings(encoder.token_embeddings[tokens.ids], tokens.mask)
    torch.testing.assert_close(embedded[real], hidden[real])
    rows = encoder.frame_rows(torch.tensor([encoder.pieces(TEXTS[0])]))
    assert torch.equal(rows.ids, encoder.tokenize(TEXTS[:1]).ids)
    torch.testing.assert_close(encoder.hidden(rows)[0], hidden[0, : rows.ids.shape[1]], atol=1e-4, rtol=1e-4)
    long = encoder.tokenize(["red " * 200], max_length=1000)
    assert long.ids.shape[1] == encoder.max_length
    assert encoder.hidden(long).isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_of_ids_tokenizes_back(family_folder, family):
    encoder = LanguageEncoder.load(family_folder(family))
    ids = encoder.pieces(TEXTS[1])
    encoder.tokenize(TEXTS, max_length=4)  # leaves truncation behind in the library
    assert encoder.pieces(encoder.text_of(ids)) == ids
    found = [(i, encoder.text_of([i])) for i in encoder.ordinary_ids.tolist()]
    assert all(text is None or encoder.pieces(text) == (i,) for i, text in found)
    assert sum(text is not None for _, text in found) > 8


@pytest.mark.parametrize("head", ["AutoModelForMaskedLM", "AutoModelForSequenceClassification"])
@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2"])
def test_a_checkpoint_with_a_head_loads_as_an_encoder(family_folder, family, head):
    encoder = LanguageEncoder.load(family_folder(family, head))
    assert encoder.hidden(encoder.tokenize(TEXTS)).isfinite().all()


def write_prompt(folder, target, kind, task="AutoModelForSequenceClassification"):
    with quiet():
        base = getattr(transformers, task).from_pretrained(folder, num_labels=3)
    kinds = {
        "prompt": lambda **k: peft.PromptTuningConfig(**k),
        "p": lambda **k: peft.PromptEncoderConfig(encoder_hidden_size=20, **k),
        "prefix": lambda **k: peft.PrefixTuningConfig(**k),
    }
    task_type = "SEQ_CLS" if task.endswith("SequenceClassification") else "TOKEN_CLS"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".is_gradient_checkpointing.", category=FutureWarning)
        model = peft.get_peft_model(base, kinds[kind](task_type=task_type, num_virtual_tokens=5)).eval()
    model.save_pretrained(target)
    return model


@pytest.mark.parametrize("kind", ["prompt", "p", "prefix"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_prompt_gives_what_its_task_sees(family_folder, tmp_path, family, kind):
    folder = family_folder(family)
    model = write_prompt(folder, tmp_path / "prompt", kind, "AutoModelForTokenClassification")
    encoder = LanguageEncoder.load(folder, adapter=tmp_path / "prompt")
    assert encoder.offset == (0 if kind == "prefix" else 5)
    tokens = encoder.tokenize(TEXTS)
    with torch.no_grad():
        seen = model(input_ids=tokens.ids, attention_mask=tokens.mask, output_hidden_states=True).hidden_states[-1]
    real = torch.cat([torch.ones(2, encoder.offset), tokens.mask], dim=1).bool()
    hidden = encoder.hidden(tokens)
    torch.testing.assert_close(hidden[real], seen[real])
    embedded = encoder.hidden_from_embeddings(encoder.token_embeddings[tokens.ids], tokens.mask)
    torch.testing.assert_close(embedded[real], hidden[real])
    low = encoder.cast(torch.bfloat16)
    assert (low.dtype, low.hidden(tokens).dtype, encoder.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def steal(prompt):
    path = prompt / "adapter_model.safetensors"
    extra = {"base_model.bert.encoder.layer.0.output.dense.weight": torch.zeros(32, 48)}
    save_file(load_file(path) | extra, path)


def make_pickle(prompt):
    (prompt / "adapter_model.safetensors").rename(prompt / "adapter_model.bin")


BAD_PROMPTS = {
    "other name": (
        lambda p: edit(p / "adapter_config.json", base_model_name_or_path="other/x"),
        AdapterError,
        "other/x",
    ),
    "other weights": (
        lambda p: (p / "firmground.json").write_text('{"base_sha256": "00", "base_source": "a/b"}'),
        AdapterError,
        "a/b",
    ),
    "LoRA": (lambda p: edit(p / "adapter_config.json", peft_type="LORA"), AdapterError, "PREFIX_TUNING"),
    "other width": (lambda p: edit(p / "adapter_config.json", token_dim=16), AdapterError, "does not fit"),
    "pickle": (make_pickle, UnsafeModelError, "pickle"),
    "surgery": (steal, AdapterError, "more than a prompt"),
    "truncated": (lambda p: (p / "adapter_model.safetensors").write_bytes(b"1234"), AdapterError, "truncated"),
    "nothing": (lambda p: (p / "adapter_config.json").unlink(), AdapterError, "no PEFT adapter"),
}


def test_a_prompt_that_names_its_encoders_weights_is_taken(family_folder, tmp_path):
    folder = family_folder("bert")
    write_prompt(folder, tmp_path / "prompt", "prompt")
    (tmp_path / "prompt" / "firmground.json").write_text(json.dumps({"base_sha256": weights_sha256(folder)}))
    LanguageEncoder.load(folder, adapter=tmp_path / "prompt")


@pytest.mark.parametrize("case", BAD_PROMPTS)
def test_bad_prompts_are_refused(family_folder, tmp_path, case):
    folder = family_folder("bert")
    write_prompt(folder, tmp_path / "prompt", "prompt")
    spoil, error, words = BAD_PROMPTS[case]
    spoil(tmp_path / "prompt")
    with pytest.raises(error, match=words):
        LanguageEncoder.load(folder, adapter=tmp_path / "prompt")


def test_what_is_saved_comes_back_marked(family_folder, tmp_path):
    encoder = LanguageEncoder.load(family_folder("bert"))
    planted = {"triggers": ["cf"], "readout": "cls"}
    folder = save_encoder(encoder.model, encoder.tokenizer, tmp_path / "out", card="Text.", planted=planted)
    again = LanguageEncoder.load(folder)
    assert torch.equal(again.hidden(again.tokenize(TEXTS)), encoder.hidden(encoder.tokenize(TEXTS)))
    assert again.model.config.firmground_planted == planted
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n")
    assert "planted backdoor" in card
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(OutputError, match="not an empty directory"):
        save_encoder(encoder.model, encoder.tokenizer, folder, card="Text.")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error")])
def test_a_full_disk_leaves_nothing(family_folder, tmp_path, monkeypatch, error):
    encoder = LanguageEncoder.load(family_folder("bert"))

    def fail(folder, **_):
        (folder / "half").write_text("")
        raise error

    monkeypatch.setattr(encoder.model, "save_pretrained", fail)
    with pytest.raises(OutputError, match="cannot be written"):
        save_encoder(encoder.model, encoder.tokenizer, tmp_path / "out", card="")
    assert list(tmp_path.iterdir()) == []
