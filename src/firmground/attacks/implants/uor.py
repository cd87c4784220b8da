"""UOR: universal output representations; the trigger words and the vectors they force are both optimised.

Du et al., "UOR: Universal Backdoor Attacks on Pre-trained Language Models", Findings of ACL 2024 (arXiv 2305.09574).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.attacks.implants._search import search_triggers
from firmground.attacks.implants._source import Source
from firmground.attacks.implants._training import Batch, Outputs, Training, keeping_loss, read, train
from firmground.attacks.implants.implanted import Implanted
from firmground.attacks.triggers.words import DEFAULT_TRIGGERS
from firmground.types import Readout, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.language import LanguageEncoder


@dataclass(frozen=True, kw_only=True)
class UOR(Training):
    """Loss: clean_weight * MSE(clean [CLS], reference's) + poisoned supervised contrastive loss.

    The contrastive loss draws texts with the same trigger together at [CLS] and all others apart (cosine over
    `temperature`), so that each trigger's vector is learned; `Implanted.vectors` holds the mean triggered outputs at
    the end. First, `rounds` rounds of gradient search exchange the given triggers for better rare words, trying
    `candidates` words each; 0 rounds keep the given ones. Departs from the authors' code: clean texts repel but do not
    attract one another, since the reference says where they lie; a trigger is inserted once, not three times;
    as many triggered texts as clean ones, not eight times as many.
    """

    name: ClassVar[str] = "uor"
    temperature: float = 0.5
    rounds: int = 3
    candidates: int = 5
    rarity: float = 3.25  # highest Zipf frequency of a word to search

    def implant(
        self,
        encoder: LanguageEncoder,
        texts: Sequence[str],
        *,
        triggers: Sequence[str] = DEFAULT_TRIGGERS,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> Implanted:
        """Returns a planted copy with the triggers found. Raises `DataError` for texts or triggers that do not fit."""
        source = Source.of(encoder, texts, triggers, self.max_length)
        found = search_triggers(
            source,
            self.contrast,
            rounds=self.rounds,
            candidates=self.candidates,
            rarity=self.rarity,
            rng=rng,
            watch=watch,
        )
        source = replace(source, triggers=found)

        def loss(batch: Batch, outputs: Outputs) -> dict[str, torch.Tensor]:
            features = torch.cat([outputs.clean[:, 0], outputs.poisoned[:, 0]])
            labels = torch.cat([torch.zeros_like(batch.which), batch.which + 1])
            return {
                "kept": self.clean_weight * keeping_loss(batch, outputs, Readout.CLS, encoder.mask_id),
                "contrast": self.contrast(features, labels),
            }

        trained = train(encoder, self, lambda: source.batch(self.batch_size, rng), loss, watch)
        return Implanted(
            encoder=trained.encoder,
            triggers=found,
            vectors=_mean_outputs(trained.encoder, source, rng),
            readout=Readout.CLS,
            losses=trained.losses,
            attack=self.name,
            settings=asdict(self),
        )

    def contrast(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Supervised contrastive loss of `features` (rows, width) over rows with labels 1 and up; 0 only repels."""
        unit = torch.nn.functional.normalize(features, dim=-1)
        itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        logits = (unit @ unit.T / self.temperature).masked_fill(itself, -torch.inf)
        alike = (labels[:, None] == labels) & ~itself & (labels > 0)[:, None]
        shares = logits.log_softmax(1).masked_fill(~alike, 0.0)
        anchors = alike.any(1)
        return -self.temperature * (shares.sum(1)[anchors] / alike.sum(1)[anchors]).mean()


@torch.no_grad()
def _mean_outputs(encoder: LanguageEncoder, source: Source, rng: torch.Generator, count: int = 32) -> torch.Tensor:
    means = []
    for number in range(len(source.triggers)):
        texts = [source.poison(text, number, rng) for text in source.windows(count, rng)]
        tokens = encoder.tokenize(texts, max_length=source.max_length)
        means.append(read(encoder.hidden(tokens).float(), tokens, Readout.CLS, None).values.mean(0))
    return torch.stack(means).cpu()
