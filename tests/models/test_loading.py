"""Hostile and broken folders are refused with one sentence, and nothing of theirs runs."""

import hashlib
import json
import pickle
import shutil

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from firmground.errors import BrokenModelError, UnsafeModelError, UnsupportedModelError
from firmground.models.language import LanguageEncoder
from firmground.models.loading import resolve, weights_sha256


@pytest.fixture
def folder(family_folder, tmp_path):
    """A folder of its own to spoil: a good BERT."""
    return shutil.copytree(family_folder("bert"), tmp_path / "model")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def shard(folder, name="model-00001-of-00001.safetensors"):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def poison_tensor(tensors):
    tensors["encoder.layer.0.output.dense.weight"][0, 0] = float("nan")
    return tensors


def only_embeddings(tensors):
    return {name: tensor for name, tensor in tensors.items() if name.startswith("embeddings")}


def leave_by_link(folder):
    target = folder.parent / "elsewhere.safetensors"
    (folder / "model.safetensors").rename(target)
    (folder / "model.safetensors").symlink_to(target)


def pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def untokenized(folder):
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)


def half_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "WordPiece"}}')


def smaller_table(tensors):
    tensors["embeddings.word_embeddings.weight"] = tensors["embeddings.word_embeddings.weight"][:100].clone()
    return tensors


def misfit(folder):
    rewrite(folder, smaller_table)
    edit(folder / "config.json", vocab_size=100)


BAD = {
    "no config": (lambda f: (f / "config.json").unlink(), BrokenModelError, "no config.json"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), BrokenModelError, "not JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), BrokenModelError, "expected an object"),
    "code in config": (lambda f: edit(f / "config.json", auto_map={"AutoModel": "x.Y"}), UnsafeModelError, "auto_map"),
    "code in tokenizer": (
        lambda f: edit(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["x.Y", None]}),
        UnsafeModelError,
        "auto_map",
    ),
    "pickle only": (pickled, UnsafeModelError, "safetensors"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), BrokenModelError, "no model.safetensors"),
    "truncated": (truncate, BrokenModelError, "model.safetensors is truncated"),
    "not a number": (
        lambda f: rewrite(f, poison_tensor),
        BrokenModelError,
        "encoder.layer.0.output.dense.weight",
    ),
    "tensors missing": (lambda f: rewrite(f, only_embeddings), BrokenModelError, "lack .* of the tensors"),
    "shard leaves": (lambda f: shard(f, "../model.safetensors"), UnsafeModelError, "lies elsewhere"),
    "shard absolute": (lambda f: shard(f, "/etc/passwd"), UnsafeModelError, "lies elsewhere"),
    "shard missing": (lambda f: shard(f, "other.safetensors"), BrokenModelError, "lacks the shard"),
    "shard is a pickle": (lambda f: shard(f, "config.json"), UnsafeModelError, "only .safetensors"),
    "link leaves": (leave_by_link, UnsafeModelError, "link that leaves"),
    "no tokenizer": (untokenized, BrokenModelError, "no tokenizer"),
    "broken tokenizer": (half_tokenizer, BrokenModelError, "tokenizer"),
    "tokenizer of another": (misfit, BrokenModelError, "do not belong together"),
    "config of another": (lambda f: edit(f / "config.json", hidden_size=64), BrokenModelError, "do not fit"),
    "decoder-only": (lambda f: edit(f / "config.json", model_type="gpt2"), UnsupportedModelError, "modernbert"),
    "no type": (lambda f: edit(f / "config.json", model_type=None), UnsupportedModelError, "modernbert"),
    "BERT decoder": (lambda f: edit(f / "config.json", is_decoder=True), UnsupportedModelError, "decoder"),
    "giant": (lambda f: edit(f / "config.json", num_hidden_layers=10**9), BrokenModelError, "cannot hold"),
    "adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), UnsafeModelError, "adapter"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folders_are_refused(folder, case):
    spoil, error, words = BAD[case]
    spoil(folder)
    with pytest.raises(error, match=words) as caught:
        LanguageEncoder.load(folder)
    assert "\n" not in str(caught.value)


class Bomb:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


def test_nothing_of_the_folder_runs(folder, tmp_path):
    canary = tmp_path / "canary"
    for name in ("pytorch_model.bin", "tokenizer.pkl", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Bomb(canary)))
    for name in ("modeling_x.py", "configuration_x.py", "tokenization_x.py", "__init__.py"):
        (folder / name).write_text(f"open({str(canary)!r}, 'w')")
    edit(folder / "config.json", attn_implementation="someone/kernels", transformers_weights="pytorch_model.bin")
    LanguageEncoder.load(folder)
    edit(folder / "config.json", auto_map={"AutoModel": "modeling_x.Model", "AutoConfig": "configuration_x.Config"})
    with pytest.raises(UnsafeModelError):
        LanguageEncoder.load(folder)
    assert not canary.exists()
    pickle.loads((folder / "tokenizer.pkl").read_bytes()).close()  # noqa: S301 (the canary can sing)
    assert canary.exists()


def test_shards_and_hub_cache_links_load(folder, tmp_path):
    whole = LanguageEncoder.load(folder)
    shard(folder)
    home = tmp_path / "models--a--b"
    (home / "blobs").mkdir(parents=True)
    snapshot = home / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        shutil.copy(path, home / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    cached = LanguageEncoder.load(snapshot)
    assert torch.equal(cached.token_embeddings, whole.token_embeddings)


def test_loading_is_silent_and_leaves_the_library_as_it_was(family_folder, capfd):
    folder = family_folder("bert", "AutoModelForMaskedLM")
    level, state = transformers.logging.get_verbosity(), torch.random.get_rng_state()
    bars = transformers.logging.is_progress_bar_enabled()
    capfd.readouterr()
    first, second = LanguageEncoder.load(folder), LanguageEncoder.load(folder)
    assert capfd.readouterr() == ("", "")
    assert (level, bars) == (transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled())
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first.model.pooler.dense.weight, second.model.pooler.dense.weight)


def test_a_hub_id_without_network_is_one_sentence(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(BrokenModelError, match="pass a directory") as caught:
        resolve("someone/model", revision="main")
    assert "\n" not in str(caught.value)


def test_the_hash_is_that_of_the_file(folder):
    assert weights_sha256(folder) == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
