"""AttackVLM: towards the embedding of a chosen image or text.

Zhao et al., "On Evaluating Adversarial Robustness of Large Vision-Language Models", NeurIPS 2023, arXiv 2305.16934,
the transfer step: eq. 2 (MF-it, a target text) and eq. 3 (MF-ii, a target image), by signed steps. Departs from the
paper: the search starts at random, and without a target each image goes towards the next one of the set. The query
step, which needs a victim's answers, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from firmground.attacks.evasion._embedding import similarity, targets_for
from firmground.attacks.evasion._search import Objective, Search, run
from firmground.errors import DataError
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    import torch

    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders, Surrogate
    from firmground.types import Images


@dataclass(frozen=True, kw_only=True)
class AttackVLM(Search):
    """Makes the cosine with the embedding of `text`, or of target images, large."""

    name: ClassVar[str] = "attack-vlm"
    paper: ClassVar[str] = "Zhao et al., NeurIPS 2023, arXiv 2305.16934"
    text: str = ""

    def perturb(
        self,
        encoder: Encoders,
        images: Images,
        *,
        target: Images | None = None,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1], towards `target` images in turn; see `Perturbed`.

        Raises `DataError` where a text is wanted of a surrogate without a text tower, or there is no target.
        """

        by_text = bool(self.text) and target is None

        def begin(surrogate: Surrogate, clean: Images, target: Images) -> Objective:
            if not by_text:
                wanted = surrogate.embed(target)
            elif surrogate.encoder is not None:
                wanted = surrogate.encoder.embed_texts([self.text])
            else:
                raise DataError(f"{surrogate.source} has no text tower for {self.text!r}; give a target image")
            return lambda images: -similarity(surrogate.embed(images), wanted)

        goal = None if by_text else targets_for(images, target)
        return run(self, encoder, images, begin, rng=rng, watch=watch, target=goal)
