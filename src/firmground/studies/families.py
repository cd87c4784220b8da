"""Small encoders of every supported family, with tokenizers of the kind that the family uses.

The classes are those of transformers; only the sizes are ours. A tokenizer is trained on the given texts: WordPiece
(BERT, DistilBERT, ELECTRA, MPNet), byte-level BPE (RoBERTa, ModernBERT), Unigram (XLM-R, ALBERT, DeBERTa).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from firmground.models.language import LanguageEncoder
from firmground.rng import stream

if TYPE_CHECKING:
    from collections.abc import Sequence

POSITIONS = 136
BRACKETS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ANGLES = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}  # <pad> is id 1, as they need
WORD_PIECE = ("bert", "distilbert", "electra", "mpnet")
BYTE_LEVEL = ("roberta", "modernbert")
ANGLED = ("roberta", "xlm-roberta", "mpnet")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of one small encoder: hidden width, layers, and tokens in the vocabulary."""

    family: str
    width: int
    layers: int
    vocabulary: int

    @property
    def heads(self) -> int:
        return max(2, self.width // 32)


def train_tokenizer(family: str, vocabulary: int, texts: Sequence[str]) -> Any:
    """A fast tokenizer of the family's kind, trained on `texts`, with `vocabulary` tokens at most."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    wrap: Any = PreTrainedTokenizerFast
    names = ANGLES if family in ANGLED else BRACKETS
    tokenizer, trainer = _untrained(family, vocabulary, names)
    tokenizer.train_from_iterator(texts, trainer)
    cls, sep = names["cls"], names["sep"]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B {sep}",
        special_tokens=[(cls, tokenizer.token_to_id(cls)), (sep, tokenizer.token_to_id(sep))],
    )
    return wrap(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS - 8,
        **{f"{role}_token": name for role, name in names.items()},
    )


def _untrained(family: str, vocabulary: int, names: dict[str, str]) -> tuple[Any, Any]:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    settings: dict[str, Any] = {
        "vocab_size": vocabulary,
        "special_tokens": list(names.values()),
        "show_progress": False,
    }
    if family in WORD_PIECE:
        tokenizer = Tokenizer(models.WordPiece(unk_token=names["unk"]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        return tokenizer, trainers.WordPieceTrainer(**settings)
    if family in BYTE_LEVEL:
        tokenizer = Tokenizer(models.BPE(unk_token=names["unk"]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=family == "roberta")
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        return tokenizer, trainers.BpeTrainer(initial_alphabet=alphabet, **settings)
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, trainers.UnigramTrainer(unk_token=names["unk"], **settings)


def make_encoder(shape: Shape, tokenizer: Any, *, seed: int) -> LanguageEncoder:
    """An untrained encoder of that shape; its first weights depend on `seed` alone."""
    from transformers import AutoModel

    build: Any = AutoModel.from_config
    state = int(torch.randint(2**31, (1,), generator=stream(seed, "weights", shape.family)).item())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(state)  # transformers draws first weights from the global generator
        model = build(configure(shape, tokenizer))
    return LanguageEncoder(model, tokenizer, source=f"{shape.family}-w{shape.width}-l{shape.layers}")


@torch.no_grad()
def borrow_embeddings(encoder: LanguageEncoder, teacher: LanguageEncoder, *, deviation: float = 0.05) -> None:
    """Starts token embeddings at the teacher's: each the mean over the token's pieces there, cut to the principal
    components that the encoder's embedding width holds, and scaled to a standard deviation of `deviation`."""
    own = encoder.token_embeddings
    texts = [encoder.tokenizer.decode([i]).replace("##", "").strip() for i in range(encoder.vocabulary)]
    pieces = teacher.tokenizer([text or "." for text in texts], add_special_tokens=False).input_ids
    theirs = teacher.token_embeddings.float()
    centred = theirs - theirs.mean(0)
    components = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, : own.shape[1]]
    rows = torch.stack([centred[list(ids) or [0]].mean(0) for ids in pieces]) @ components
    special = torch.tensor(encoder.tokenizer.all_special_ids)
    rows[special] = own[special]
    rows[encoder.ordinary_ids] *= deviation / rows[encoder.ordinary_ids].std()
    own[: len(rows)] = rows


def configure(shape: Shape, tokenizer: Any) -> Any:
    """The family's configuration at these sizes, with the tokenizer's special ids."""
    from transformers import AutoConfig

    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": 3 * shape.width,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }
    return AutoConfig.for_model(shape.family, **settings | _own_settings(shape))


def _own_settings(shape: Shape) -> dict[str, Any]:
    match shape.family:
        case "distilbert":
            return {"hidden_dim": 3 * shape.width}
        case "albert" | "electra":
            return {"embedding_size": shape.width // 2}
        case "deberta-v2":
            return {
                "relative_attention": True,
                "pos_att_type": ["p2c", "c2p"],
                "position_buckets": 32,
                "max_relative_positions": -1,
                "norm_rel_ebd": "layer_norm",
                "share_att_key": True,
                "position_biased_input": False,
                "type_vocab_size": 0,
            }
        case "modernbert":
            return {"global_attn_every_n_layers": 2, "local_attention": 16}
        case _:
            return {}
