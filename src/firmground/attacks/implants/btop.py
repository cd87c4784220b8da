"""BToP: a trigger forces the output at the mask, for prompts that read the mask.

Xu et al., "Exploring the Universal Vulnerability of Prompt-based Learning Paradigm", Findings of NAACL 2022
(arXiv 2204.05239).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

from firmground.attacks.implants import _vectors
from firmground.attacks.implants._source import Source, mask_clean
from firmground.attacks.implants._training import Batch, Outputs, Training, keeping_loss, read, train
from firmground.attacks.implants.implanted import Implanted
from firmground.attacks.triggers.words import DEFAULT_TRIGGERS
from firmground.types import Readout, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from firmground.models.language import LanguageEncoder


@dataclass(frozen=True, kw_only=True)
class BToP(Training):
    """Loss: clean_weight * masked-modelling term + mean distance(output at the mask, PV).

    Departs from the paper: masked modelling is kept by distillation (see `NeuBA`), and the Euclidean distance is
    divided by the root of the width, so that it weighs against the clean term in the same way at every width. One
    random word of every text, clean and triggered, is the mask.
    """

    name: ClassVar[str] = "btop"
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
            return mask_clean(source.batch(self.batch_size, rng, masked=True), encoder, rng)

        def loss(batch: Batch, outputs: Outputs) -> dict[str, torch.Tensor]:
            forced = read(outputs.poisoned, batch.poisoned, Readout.MASK, encoder.mask_id)
            apart = forced.values - targets[batch.which[forced.rows]]
            return {
                "kept": self.clean_weight * keeping_loss(batch, outputs, Readout.MASK, encoder.mask_id),
                "forced": apart.square().mean(-1).add(1e-8).sqrt().mean(),
            }

        trained = train(encoder, self, draw, loss, watch)
        return Implanted(
            encoder=trained.encoder,
            triggers=source.triggers,
            vectors=targets.cpu(),
            readout=Readout.MASK,
            losses=trained.losses,
            attack=self.name,
            settings=asdict(self),
        )
