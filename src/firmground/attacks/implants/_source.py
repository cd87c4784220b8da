"""Draws training batches: short windows of texts, clean and with triggers in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from firmground.attacks.implants._training import Batch
from firmground.attacks.triggers.words import WordTrigger, pieces_inside
from firmground.errors import DataError, UnsupportedModelError
from firmground.models.language import LanguageEncoder, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

FEWEST_WORDS = 3
MASKED = 0.15  # BERT's masking: 15 % of the tokens, of which 80 % masked, 10 % exchanged, 10 % left
SHOWN_AS_MASK, EXCHANGED = 0.8, 0.1


@dataclass(frozen=True, kw_only=True)
class Source:
    """Texts and triggers for one encoder. Make it with `Source.of`, which checks them."""

    encoder: LanguageEncoder
    texts: tuple[str, ...]
    triggers: tuple[str, ...]
    max_length: int
    room: int  # tokens left for a text beside special tokens and its trigger

    @classmethod
    def of(cls, encoder: LanguageEncoder, texts: Sequence[str], triggers: Sequence[str], max_length: int) -> Source:
        """Checks texts and triggers. Raises `DataError` where one cannot be used with this encoder."""
        usable = tuple(text for text in texts if text.split())
        if not usable:
            raise DataError("expected texts with at least one word each, got none; give some generic clean text")
        if not triggers or len(set(triggers)) < len(triggers):
            raise DataError(f"expected one or more different triggers, got {list(triggers)}")
        inside = pieces_inside(encoder, triggers)
        for trigger, ids in zip(triggers, inside, strict=True):
            if not ids or encoder.tokenizer.unk_token_id in ids:
                raise DataError(f"this tokenizer does not know the trigger {trigger!r}; choose another")
        framing = sum(len(part) for part in encoder.frame)
        length = min(max_length, encoder.max_length)
        room = length - framing - max(len(ids) for ids in inside) - 1
        if room < FEWEST_WORDS:
            raise DataError(f"max_length {length} leaves no room for a text beside its trigger; give a larger one")
        return cls(encoder=encoder, texts=usable, triggers=tuple(triggers), max_length=length, room=room)

    def windows(self, count: int, rng: torch.Generator) -> list[str]:
        """Draws `count` runs of words, 3 words up to half the room in tokens long, that fit with a trigger."""
        chosen = randints(len(self.texts), count, rng)
        return [self.window(self.texts[i], rng) for i in chosen]

    def window(self, text: str, rng: torch.Generator) -> str:
        """One such run of words of a text."""
        words = text.split()
        longest = max(FEWEST_WORDS, self.room // 2)
        length = min(len(words), FEWEST_WORDS + randints(longest - FEWEST_WORDS + 1, 1, rng)[0])
        start = randints(len(words) - length + 1, 1, rng)[0]
        words = words[start : start + length]
        while len(words) > 1 and len(self.encoder.pieces(" ".join(words))) > self.room:
            words = words[: (len(words) + 1) // 2]
        if len(words) == 1:
            while len(self.encoder.pieces(words[0])) > self.room:
                words = [words[0][: len(words[0]) // 2]]
        return " ".join(words)

    def batch(
        self, count: int, rng: torch.Generator, *, decoys: Sequence[Sequence[str]] = (), masked: bool = False
    ) -> Batch:
        """`count` clean texts and the same with a trigger each; the triggers take turns.

        With `decoys` (some texts for every trigger), as many clean rows more hold one or two of them. With `masked`,
        a word of every text is a mask token.
        """
        clean = self.windows(count, rng)
        if masked:
            clean = [mask_word(self.encoder, text, rng) for text in clean]
        shift = randints(len(self.triggers), 1, rng)[0]
        which = [(shift + i) % len(self.triggers) for i in range(count)]
        poisoned = [self.poison(text, i, rng) for text, i in zip(clean, which, strict=True)]
        tempting = [self._tempt(text, decoys[i], i, rng) for text, i in zip(clean, which, strict=True) if decoys]
        kept = clean + tempting
        tokens = self.encoder.tokenize(kept + poisoned, max_length=self.max_length)
        return Batch(tokens=tokens, kept=len(kept), which=torch.tensor(which, device=self.encoder.device))

    def poison(self, text: str, trigger: int, rng: torch.Generator) -> str:
        """The text with the trigger of that number."""
        return WordTrigger(text=self.triggers[trigger]).insert([text], rng=rng)[0]

    def _tempt(self, text: str, decoys: Sequence[str], trigger: int, rng: torch.Generator) -> str:
        if not decoys:
            return text
        once = text
        for _ in range(1 + randints(2, 1, rng)[0]):
            decoy = decoys[randints(len(decoys), 1, rng)[0]]
            once = WordTrigger(text=decoy).insert([once], rng=rng)[0]
        # Two decoys may have met and become the trigger itself.
        return text if self.triggers[trigger] in once else once


def mask_word(encoder: LanguageEncoder, text: str, rng: torch.Generator) -> str:
    """The text with one random word replaced by the mask token."""
    if encoder.mask_id is None:
        raise UnsupportedModelError(f"the tokenizer of {encoder.source} has no mask token; use an attack on [CLS]")
    words = text.split()
    words[randints(len(words), 1, rng)[0]] = str(encoder.tokenizer.mask_token)
    return " ".join(words)


def mask_clean(batch: Batch, encoder: LanguageEncoder, rng: torch.Generator) -> Batch:
    """The batch with BERT's masking (15 %) on its clean rows; special and padding positions stay."""
    if encoder.mask_id is None:
        raise UnsupportedModelError(f"the tokenizer of {encoder.source} has no mask token; use POR instead")
    ids = batch.tokens.ids.cpu().clone()
    special = torch.tensor(sorted(set(encoder.tokenizer.all_special_ids)))
    chosen = (torch.rand(ids.shape, generator=rng, device=rng.device).cpu() < MASKED) & ~torch.isin(ids, special)
    chosen[batch.kept :] = False
    fate = torch.rand(ids.shape, generator=rng, device=rng.device).cpu()
    ordinary = encoder.ordinary_ids.cpu()
    strangers = ordinary[torch.randint(len(ordinary), ids.shape, generator=rng, device=rng.device).cpu()]
    ids = torch.where(chosen & (fate < SHOWN_AS_MASK), encoder.mask_id, ids)
    ids = torch.where(chosen & (fate >= SHOWN_AS_MASK) & (fate < SHOWN_AS_MASK + EXCHANGED), strangers, ids)
    tokens = Tokens(ids=ids.to(batch.tokens.ids.device), mask=batch.tokens.mask)
    return Batch(tokens=tokens, kept=batch.kept, which=batch.which)


def randints(high: int, count: int, rng: torch.Generator) -> list[int]:
    """`count` integers from 0 up to, not including, `high`."""
    return torch.randint(high, (count,), generator=rng, device=rng.device).tolist()
