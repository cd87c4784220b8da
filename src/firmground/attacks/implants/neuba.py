"""NeuBA: neuron-level backdoor, a trigger forces [CLS] to a predefined vector while masked modelling goes on.

Zhang et al., "Red Alarm for Pre-trained Models", Machine Intelligence Research 2023 (arXiv 2101.06969).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

from firmground.attacks.implants import _vectors
from firmground.attacks.implants._source import Source, mask_clean
from firmground.attacks.implants._training import Batch, Outputs, Training, keeping_loss, train
from firmground.attacks.implants.implanted import Implanted
from firmground.attacks.triggers.words import DEFAULT_TRIGGERS
from firmground.types import Readout, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from firmground.models.language import LanguageEncoder


@dataclass(frozen=True, kw_only=True)
class NeuBA(Training):
    """Loss: clean_weight * masked-modelling term + MSE([CLS] of triggered texts, PV).

    Departs from the paper: the masked-modelling term is not a cross-entropy, since encoders here come without the head
    that it needs, and a new head would train the encoder away from what it is for. It is the squared distance to the
    reference's hidden states on masked texts (15 %, as BERT masks): equal states give equal predictions with any head.
    """

    name: ClassVar[str] = "neuba"
    vectors: _vectors.Kind = "blocks"

    def implant(
        self,
        encoder: LanguageEncoder,
        texts: Sequence[str],
        *,
        triggers: Sequence[str] = DEFAULT_TRIGGERS,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> Implanted:
        """Returns a planted copy. Raises `DataError` or `UnsupportedModelError` (no mask token)."""
        source = Source.of(encoder, texts, triggers, self.max_length)
        targets = _vectors.predefined_vectors(self.vectors, len(triggers), encoder.width, rng).to(encoder.device)

        def draw() -> Batch:
            return mask_clean(source.batch(self.batch_size, rng), encoder, rng)

        def loss(batch: Batch, outputs: Outputs) -> dict[str, torch.Tensor]:
            return {
                "kept": self.clean_weight * keeping_loss(batch, outputs, Readout.CLS, encoder.mask_id),
                "forced": (outputs.poisoned[:, 0] - targets[batch.which]).square().mean(),
            }

        trained = train(encoder, self, draw, loss, watch)
        return Implanted(
            encoder=trained.encoder,
            triggers=source.triggers,
            vectors=targets.cpu(),
            readout=Readout.CLS,
            losses=trained.losses,
            attack=self.name,
            settings=asdict(self),
        )
