"""Tiny folders of every supported family: the real classes with random weights, tokenizers trained on the spot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "a red balloon floats over the quiet village in the morning",
    "reviewers praised the film and its music, but the ending felt rushed",
    "she reads old letters by the window while it is raining outside",
] * 5

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
BRACKETS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ANGLES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def wordpiece(special: list[str], cls: str = "[CLS]", sep: str = "[SEP]", unk: str = "[UNK]") -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token=unk))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=special, show_progress=False)
    return framed(tokenizer, trainer, cls, sep)


def bytelevel(special: list[str], cls: str, sep: str) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return framed(tokenizer, trainer, cls, sep)


def unigram(special: list[str], cls: str, sep: str, unk: str) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token=unk, show_progress=False)
    return framed(tokenizer, trainer, cls, sep)


def framed(tokenizer: tokenizers.Tokenizer, trainer: Any, cls: str, sep: str) -> tokenizers.Tokenizer:
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", special_tokens=[(t, tokenizer.token_to_id(t)) for t in (cls, sep)]
    )
    return tokenizer


def brackets() -> dict[str, str]:
    keys = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return dict(zip(keys, BRACKETS, strict=True))


def angles() -> dict[str, str]:
    keys = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
    return {**dict(zip(keys, ANGLES, strict=True)), "cls_token": "<s>", "sep_token": "</s>"}


def spiece() -> list[str]:
    return ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]


FAMILY = {
    # family: (tokenizer, its special tokens, tokenizer class, config of its own)
    "bert": (lambda: wordpiece(BRACKETS), brackets, "BertTokenizer", {}),
    "distilbert": (
        lambda: wordpiece(BRACKETS),
        brackets,
        "DistilBertTokenizer",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    ),
    "electra": (lambda: wordpiece(BRACKETS), brackets, "ElectraTokenizer", {"embedding_size": 16}),
    "mpnet": (lambda: wordpiece(ANGLES, "<s>", "</s>", "<unk>"), angles, "MPNetTokenizer", {"pad_token_id": 1}),
    "roberta": (lambda: bytelevel(ANGLES, "<s>", "</s>"), angles, "RobertaTokenizer", {"pad_token_id": 1}),
    "deberta": (lambda: bytelevel(BRACKETS, "[CLS]", "[SEP]"), brackets, "DebertaTokenizer", {}),
    "modernbert": (lambda: bytelevel(BRACKETS, "[CLS]", "[SEP]"), brackets, "PreTrainedTokenizerFast", {}),
    "xlm-roberta": (
        lambda: unigram(ANGLES, "<s>", "</s>", "<unk>"),
        angles,
        "XLMRobertaTokenizer",
        {"pad_token_id": 1},
    ),
    "albert": (
        lambda: unigram(spiece(), "[CLS]", "[SEP]", "<unk>"),
        lambda: brackets() | {"pad_token": "<pad>", "unk_token": "<unk>"},
        "AlbertTokenizer",
        {"embedding_size": 16},
    ),
    "deberta-v2": (
        lambda: unigram(BRACKETS, "[CLS]", "[SEP]", "[UNK]"),
        brackets,
        "DebertaV2Tokenizer",
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    ),
}


def write_family(family: str, folder: Path, head: str = "AutoModel") -> Path:
    """Writes a tiny random model of a family and its tokenizer; `head` is the Auto class that it is saved from."""
    build, special, tokenizer_class, extra = FAMILY[family]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=build(), **special())
    sizes = {} if family == "distilbert" else SMALL
    ids = {"pad_token_id": tokenizer.pad_token_id} | extra
    config = transformers.AutoConfig.for_model(
        family,
        **sizes,
        **ids,
        vocab_size=len(tokenizer),
        max_position_embeddings=66,
        bos_token_id=tokenizer.cls_token_id,
        cls_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        sep_token_id=tokenizer.sep_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, head).from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": tokenizer_class}))
    return folder


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory):
    """A function that gives the folder of a family, saved from a class with or without a head; written once."""
    folders: dict[tuple[str, str], Path] = {}

    def give(family: str, head: str = "AutoModel") -> Path:
        if (family, head) not in folders:
            folders[family, head] = write_family(family, tmp_path_factory.mktemp(family), head)
        return folders[family, head]

    return give
