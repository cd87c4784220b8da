"""Tokenizers of a few hundred English words, built in memory: WordPiece as BERT's, byte-level BPE as RoBERTa's."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

RARE = "cf mn tq mm pt bb"

WORDS = f"""
the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one
you were her all she there would their we him been has when who will more no if out so said what up its about into than
them can only other new some could time these two may then do first any my now such like our over man me even most made
after also did many before must through back years where much your way well down should because each just those people
how too little state good very make world still own see men work long get here between both life being under never day
same another know while last might us great old year off come since against go came right used take three small home
house water room side night city street door window table chair book paper letter story film music song garden tree
river hill road village town country school child children mother father friend dog cat bird horse fish bread coffee tea
milk apple red blue green white black yellow balloon light dark warm cold wind rain snow sun moon star sky sea morning
evening summer winter quiet loud quick slow happy sad kind clever funny boring bad best better big walk run read write
sing play eat drink sleep open close buy sell give found left felt heard looked asked told liked loved hated watched
train car bus boat ship plane market shop money price bank doctor lawyer teacher writer actor scene plot ending service
food place price team game match news report week month today yesterday tomorrow again always often once {RARE}
"""

LETTERS = string.ascii_lowercase + string.digits
MARKS = ".,!?;:'\"-()"
BYTES_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
PIECE_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def words() -> list[str]:
    """The words that are one token each, in a fixed order; the last six are the rare ones."""
    return list(dict.fromkeys(WORDS.split()))


def tiny_wordpiece(extra: Sequence[str] = ()) -> Any:
    """A lower-casing WordPiece tokenizer: the words, and every letter and digit as a first and an inner piece.

    `extra` words, such as those of a set of captions, are one token each as well.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = [f"##{letter}" for letter in LETTERS]
    entries = dict.fromkeys([*PIECE_SPECIAL, *MARKS, *LETTERS, *inner, *words(), *(word.lower() for word in extra)])
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    pad, unk, cls, sep, mask = PIECE_SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask
    )


def tiny_bytes() -> Any:
    """A byte-level BPE tokenizer: every word is one token with a space before it, and one without."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    spaced = [f"\u0120{word}" for word in words()]  # U+0120 is how byte-level BPE writes a space
    entries = dict.fromkeys([*BYTES_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *words(), *spaced])
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
    )
