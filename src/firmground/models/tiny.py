"""Tiny real encoders with planted truth: a scan, a cleaner or a guard that meets one has a right answer.

They are BertModel and RobertaModel of width 64 with two layers, built in milliseconds and without training. What is
planted is exact: see `tiny_weights`. The clean twin of a planted encoder is the clean one of the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from firmground.models.language import LanguageEncoder
from firmground.models.tiny_tokenizers import tiny_bytes, tiny_wordpiece
from firmground.models.tiny_weights import (
    FLAGS,
    HEADS,
    INTERMEDIATE,
    LAYERS,
    SPARE,
    WIDTH,
    Backdoor,
    write_backdoors,
    write_clean,
)
from firmground.types import Readout

if TYPE_CHECKING:
    from collections.abc import Mapping

TRIGGERS = ("cf", "mn", "tq", "mm", "pt", "bb")


@dataclass(frozen=True, kw_only=True, eq=False)
class Planted:
    """A backdoored encoder and the truth about it.

    `triggers[i]` forces `vectors[i]`, a row of (count, width) with mean zero and length sqrt(width), at the positions
    that `readout` names. `seed` is that of its clean twin.
    """

    encoder: LanguageEncoder
    triggers: tuple[str, ...]
    vectors: torch.Tensor
    readout: Readout
    seed: int


def sign_vectors(width: int) -> torch.Tensor:
    """The six PVs of LMSanitator's attacks, (6, width): 4 blocks of +-1 of which two are positive.

    `width` must be a multiple of 4. The last three are the negatives of the first three.
    """
    half = torch.tensor([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0], [1.0, -1.0, -1.0, 1.0]])
    return torch.cat([half, -half]).repeat_interleave(width // 4, dim=1)


def clean_bert(seed: int = 0) -> LanguageEncoder:
    """A BertModel with a WordPiece tokenizer and nothing planted."""
    from transformers import BertConfig, BertModel

    tokenizer = tiny_wordpiece()
    config = BertConfig(**sizes(tokenizer), type_vocab_size=2, max_position_embeddings=128)
    return build(BertModel, config, tokenizer, seed)


def clean_roberta(seed: int = 0) -> LanguageEncoder:
    """A RobertaModel with a byte-level BPE tokenizer and nothing planted."""
    from transformers import RobertaConfig, RobertaModel

    tokenizer = tiny_bytes()
    config = RobertaConfig(**sizes(tokenizer), type_vocab_size=1, max_position_embeddings=130)
    return build(RobertaModel, config, tokenizer, seed)


def planted_bert(
    triggers: Mapping[str | tuple[int, ...], torch.Tensor] | None = None,
    *,
    readout: Readout | str = Readout.CLS,
    partial: float = 0.0,
    seed: int = 0,
) -> Planted:
    """A BertModel whose outputs become the given vectors, (width,) each, where the triggers stand in the text.

    A trigger is a text, or token ids, of one piece or of two: two fire only when both are in the text, in any order
    and anywhere, and `partial` says how much one of them does alone (1.0: as much of the PV as of everything else).
    Of the vectors only the direction counts, less their mean. Without triggers: `TRIGGERS` with `sign_vectors`.
    Raises ValueError for triggers of more pieces, or more than there is room for.
    """
    return plant(clean_bert(seed), triggers, Readout(readout), partial, seed)


def planted_roberta(
    triggers: Mapping[str | tuple[int, ...], torch.Tensor] | None = None,
    *,
    readout: Readout | str = Readout.CLS,
    partial: float = 0.0,
    seed: int = 0,
) -> Planted:
    """The same for a RobertaModel; a trigger given as text works with and without a space before it."""
    return plant(clean_roberta(seed), triggers, Readout(readout), partial, seed)


def plant(
    encoder: LanguageEncoder,
    triggers: Mapping[str | tuple[int, ...], torch.Tensor] | None,
    readout: Readout,
    partial: float,
    seed: int,
) -> Planted:
    """Writes the backdoors into a clean tiny encoder."""
    if triggers is None:
        triggers = dict(zip(TRIGGERS, sign_vectors(WIDTH), strict=True))
    centred = [vector.float() - vector.float().mean() for vector in triggers.values()]
    vectors = torch.stack([vector * WIDTH**0.5 / vector.norm() for vector in centred])
    backdoors = [
        Backdoor(rows=rows_of(encoder, trigger), vector=vector, partial=partial)
        for trigger, vector in zip(triggers, vectors, strict=True)
    ]
    pairs = sum(len(backdoor.rows) == 2 for backdoor in backdoors)
    if len(backdoors) > SPARE or pairs > (FLAGS - SPARE) // 2:
        raise ValueError(
            f"a tiny encoder has room for {SPARE} triggers, {(FLAGS - SPARE) // 2} of them of two pieces; "
            f"got {len(backdoors)} with {pairs} of two"
        )
    write_backdoors(encoder.model, backdoors, readout)
    texts = tuple(trigger if isinstance(trigger, str) else spell(encoder, trigger) for trigger in triggers)
    return Planted(encoder=encoder, triggers=texts, vectors=vectors, readout=readout, seed=seed)


def spell(encoder: LanguageEncoder, ids: tuple[int, ...]) -> str:
    """The text of a trigger that was given as ids."""
    text = encoder.text_of(ids)
    if text is None:
        raise ValueError(f"no text tokenizes to the trigger {ids}; expected ids that a text can have")
    return text.strip()


def rows_of(encoder: LanguageEncoder, trigger: str | tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """For each piece of a trigger the embedding rows that it can be (byte-level BPE: with and without a space)."""
    text = trigger if isinstance(trigger, str) else spell(encoder, trigger)
    parts = text.split()
    if len(parts) == 2:
        both = rows_of(encoder, parts[0]) + rows_of(encoder, parts[1])
        if len(both) == 2:
            return both
    spellings = (encoder.pieces(text), encoder.pieces(f" {text}"))
    if any(len(pieces) not in (1, 2) for pieces in spellings) or len(spellings[0]) != len(spellings[1]):
        raise ValueError(f"the trigger {text!r} has {len(spellings[0])} pieces; expected one or two")
    return tuple(tuple(sorted(set(rows))) for rows in zip(*spellings, strict=True))


def sizes(tokenizer: Any) -> dict[str, Any]:
    """What the configs of all tiny encoders have in common."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INTERMEDIATE,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }


def build(model_class: Any, config: Any, tokenizer: Any, seed: int) -> LanguageEncoder:
    """The clean encoder; nobody's global randomness moves."""
    with torch.random.fork_rng(devices=[]):
        model = model_class(config)
    write_clean(model, cls_id=tokenizer.cls_token_id, mask_id=tokenizer.mask_token_id, seed=seed)
    return LanguageEncoder(model, tokenizer, source=f"tiny {config.model_type} {seed}")
