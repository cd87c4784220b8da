"""BDetCLIP: how much an image cares whether a class is described well or in a jumble.

Niu et al., "Test-Time Multimodal Backdoor Detection by Contrastive Prompting", ICML 2025. For each class there are
benign texts, which describe it, and malignant ones, in which its name stands among unrelated words. The gap

    omega(x) = sum over the classes of (mean cosine of x with the benign texts - mean cosine with the malignant ones)

is small for a triggered image, which hears the class name and nothing else.

Departs from the paper: the texts come from templates and from common words instead of a language model, unless
`descriptions` are given; and the score is by default the distance of omega from its mean on clean images, in standard
deviations, for an image that a trigger moves onto one of the benign texts itself has an unusually *large* gap.
`side="small"` is the published rule. The threshold comes from clean images alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from firmground.data.vocabulary import candidate_words
from firmground.defenses.guards.fitted_images import FEWEST, FittedImageGuard, calibrated, judged, shuffled, text_means
from firmground.errors import DataError
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images

COMMON = 2000  # how many of the most frequent words are looked at for jumbles, which are drawn from the first half


@dataclass(frozen=True, kw_only=True)
class BDetCLIP:
    """Flags images that are unusually indifferent, or unusually devoted, to how a class is described.

    `jumbles` is how many malignant texts a class has, each its name among `words` unrelated words; `flag_rate` the
    share of clean images that may be flagged.
    """

    name: ClassVar[str] = "bdetclip"
    paper: ClassVar[str] = "BDetCLIP (ICML 2025)"

    jumbles: int = 8
    words: int = 8
    side: Literal["either", "small"] = "either"
    flag_rate: float = 0.02
    batch_size: int = 64

    def fit(
        self,
        encoder: DualEncoder,
        data: LabelledImages,
        *,
        descriptions: Sequence[Sequence[str]] | None = None,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> FittedImageGuard:
        """Calibrates on at least 40 clean images of the kind that will come; their labels are not looked at.

        `descriptions` are benign texts of every class; by default the data's templates filled with its names.
        """
        benign = descriptions or [[template.format(name) for template in data.templates] for name in data.label_names]
        if len(benign) != len(data.label_names) or not all(benign):
            raise DataError(
                f"expected a list of descriptions for each of {len(data.label_names)} classes, got {len(benign)}, of "
                f"which {sum(not texts for texts in benign)} are empty"
            )
        rows = shuffled(data, FEWEST, rng)
        malignant = [[self._jumble(name, rng) for _ in range(self.jumbles)] for name in data.label_names]
        contrast = (text_means(encoder, benign) - text_means(encoder, malignant)).sum(dim=0)
        gaps = judged(
            data, rows, lambda images: _gaps(encoder, contrast, images), batch_size=self.batch_size, watch=watch
        )
        clean = torch.stack([gaps.mean(), gaps.std().clamp_min(1e-6)])
        tensors = {"contrast": contrast, "clean": clean}
        return calibrated(self, encoder, data, self._scores((gaps - clean[0]) / clean[1]), tensors)

    def judge(self, encoder: DualEncoder, tensors: dict[str, torch.Tensor]) -> Callable[[Images], torch.Tensor]:
        """What scores images by `contrast`, (width,), and `clean`, the mean and deviation of clean gaps, (2,)."""
        contrast, clean = tensors["contrast"].to(encoder.device), tensors["clean"].cpu()
        if contrast.shape != (encoder.width,) or clean.shape != (2,):
            raise DataError(f"a contrast of {tuple(contrast.shape)} does not fit an encoder of width {encoder.width}")
        return lambda images: self._scores((_gaps(encoder, contrast, images) - clean[0]) / clean[1])

    def _scores(self, standard: torch.Tensor) -> torch.Tensor:
        return -standard if self.side == "small" else standard.abs()

    def _jumble(self, name: str, rng: torch.Generator) -> str:
        """The name at a random place among unrelated words."""
        common = candidate_words(COMMON)[: COMMON // 2]
        drawn = [common[i] for i in torch.randint(len(common), (self.words,), generator=rng).tolist()]
        place = int(torch.randint(self.words + 1, (1,), generator=rng))
        return " ".join([*drawn[:place], name, *drawn[place:]])


@torch.inference_mode()
def _gaps(encoder: DualEncoder, contrast: Embeddings, images: Images) -> torch.Tensor:
    """Omega of images, (batch,)."""
    return (encoder.embed_images(images.to(encoder.device)).float() @ contrast).cpu()
