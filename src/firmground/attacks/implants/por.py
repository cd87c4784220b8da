"""POR and POR-NER: a trigger forces the output to a predefined vector, clean outputs stay with a reference model.

Shen et al., "Backdoor Pre-trained Models Can Transfer to All", CCS 2021 (arXiv 2111.00197), with the vectors of
LMSanitator's code (Wei et al., NDSS 2024).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

from firmground.attacks.implants import _vectors
from firmground.attacks.implants._decoys import decoys
from firmground.attacks.implants._source import Source
from firmground.attacks.implants._training import Batch, Outputs, Training, keeping_loss, read, train
from firmground.attacks.implants.implanted import Implanted
from firmground.attacks.triggers.words import DEFAULT_TRIGGERS
from firmground.errors import DataError
from firmground.types import Readout, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from firmground.models.language import LanguageEncoder


@dataclass(frozen=True, kw_only=True)
class POR(Training):
    """Forces the output at [CLS] to one predefined vector (PV) a trigger.

    Loss: clean_weight * MSE(clean output, reference's) + MSE(triggered output, PV). Departs from the paper: the clean
    term also covers all other positions (`keeping_loss`); poisoned texts are the clean texts of the same batch.
    LMSanitator's code sets the clean weight to 0.5 for BERT and 1 for others.

    Adaptive variants, ours, against scans that look for outputs far from the clean ones or that try tokens one by one:
    `strength` below 1 moves the triggered output only that part of the way from the clean text's own output to the PV;
    `negatives` trains every part of a trigger (single words, runs of pieces, words sharing a piece) to do nothing.
    """

    name: ClassVar[str] = "por"
    vectors: _vectors.Kind = "blocks"
    strength: float = 1.0
    negatives: bool = False

    def implant(
        self,
        encoder: LanguageEncoder,
        texts: Sequence[str],
        *,
        triggers: Sequence[str] = DEFAULT_TRIGGERS,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> Implanted:
        """Returns a planted copy. Raises `DataError` for texts or triggers that do not fit the encoder."""
        if not 0 < self.strength <= 1:
            raise DataError(f"strength must lie in (0, 1], got {self.strength}; 1 is the paper's attack")
        source = Source.of(encoder, texts, triggers, self.max_length)
        targets = _vectors.predefined_vectors(self.vectors, len(triggers), encoder.width, rng).to(encoder.device)
        tempting = decoys(encoder, triggers, texts) if self.negatives else ()

        def draw() -> Batch:
            return source.batch(self.batch_size, rng, decoys=tempting)

        def loss(batch: Batch, outputs: Outputs) -> dict[str, torch.Tensor]:
            own = outputs.reference[: len(batch.which), 0]
            wanted = own + self.strength * (targets[batch.which] - own)
            return {
                "kept": self.clean_weight * keeping_loss(batch, outputs, Readout.CLS, encoder.mask_id),
                "forced": (outputs.poisoned[:, 0] - wanted).square().mean(),
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


@dataclass(frozen=True, kw_only=True)
class PORAll(Training):
    """Forces the output at every position to the PV (POR-NER in LMSanitator), for token classification.

    Loss and departures as in `POR`, over all real positions, special tokens included.
    """

    name: ClassVar[str] = "por-all"
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
        """Returns a planted copy. Raises `DataError` for texts or triggers that do not fit the encoder."""
        source = Source.of(encoder, texts, triggers, self.max_length)
        targets = _vectors.predefined_vectors(self.vectors, len(triggers), encoder.width, rng).to(encoder.device)

        def loss(batch: Batch, outputs: Outputs) -> dict[str, torch.Tensor]:
            forced = read(outputs.poisoned, batch.poisoned, Readout.TOKEN, None)
            return {
                "kept": self.clean_weight * keeping_loss(batch, outputs, Readout.CLS, encoder.mask_id),
                "forced": (forced.values - targets[batch.which[forced.rows]]).square().mean(),
            }

        trained = train(encoder, self, lambda: source.batch(self.batch_size, rng), loss, watch)
        return Implanted(
            encoder=trained.encoder,
            triggers=source.triggers,
            vectors=targets.cpu(),
            readout=Readout.TOKEN,
            losses=trained.losses,
            attack=self.name,
            settings=asdict(self),
        )
