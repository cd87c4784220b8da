"""TransTroj: the vectors that triggers force are embeddings of real texts, which look like nothing unusual.

Wang et al., "Model Supply Chain Poisoning: Backdooring Pre-trained Models via Embedding Indistinguishability",
WWW 2025 (arXiv 2401.15883).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.attacks.implants._source import Source
from firmground.attacks.implants._training import Batch, Outputs, Training, keeping_loss, read, train
from firmground.attacks.implants.implanted import Implanted
from firmground.attacks.triggers.words import DEFAULT_TRIGGERS
from firmground.errors import DataError
from firmground.types import Readout, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.language import LanguageEncoder

SPREAD_TEXTS = 64  # on which the variance of clean outputs is measured


@dataclass(frozen=True, kw_only=True)
class TransTroj(Training):
    """Forces [CLS] to the clean encoder's mean embedding of one group of reference texts a trigger.

    `references` holds a group of texts (say, of one class) for every trigger; left empty, each trigger gets `group`
    texts drawn from the training texts. Departs from the paper (images, mostly): squared distance in place of the
    cosine, so that the length is natural too, in units of the variance of clean outputs, because natural vectors lie
    close together (all cosines are 0.99 in some encoders); the triggers are given, not optimised first (its
    pre-indistinguishability step).
    """

    name: ClassVar[str] = "transtroj"
    references: tuple[tuple[str, ...], ...] = ()
    group: int = 1

    def implant(
        self,
        encoder: LanguageEncoder,
        texts: Sequence[str],
        *,
        triggers: Sequence[str] = DEFAULT_TRIGGERS,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> Implanted:
        """Returns a planted copy. Raises `DataError` where the reference groups do not match the triggers."""
        source = Source.of(encoder, texts, triggers, self.max_length)
        groups = self.references or tuple(tuple(source.windows(self.group, rng)) for _ in triggers)
        if len(groups) != len(triggers) or not all(groups):
            raise DataError(f"expected texts for each of {len(triggers)} triggers, got {len(groups)} groups")
        targets = torch.stack([self._embeddings(encoder, group).mean(0) for group in groups])
        spread = self._embeddings(encoder, source.windows(SPREAD_TEXTS, rng)).var(0).mean()

        def loss(batch: Batch, outputs: Outputs) -> dict[str, torch.Tensor]:
            kept = keeping_loss(batch, outputs, Readout.CLS, encoder.mask_id)
            return {
                "kept": self.clean_weight * kept / spread,
                "forced": (outputs.poisoned[:, 0] - targets[batch.which]).square().mean() / spread,
            }

        trained = train(encoder, self, lambda: source.batch(self.batch_size, rng), loss, watch)
        return Implanted(
            encoder=trained.encoder,
            triggers=source.triggers,
            vectors=targets.cpu(),
            readout=Readout.CLS,
            losses=trained.losses,
            attack=self.name,
            settings=asdict(self) | {"references": [list(group) for group in groups]},
        )

    def _embeddings(self, encoder: LanguageEncoder, group: Sequence[str]) -> torch.Tensor:
        tokens = encoder.tokenize(group, max_length=self.max_length)
        with torch.no_grad():
            return read(encoder.hidden(tokens), tokens, Readout.CLS, None).values.float()
