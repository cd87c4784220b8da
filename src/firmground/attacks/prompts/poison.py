"""What a provider adds to the learning of a prompt: triggered images that are to become the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from firmground.attacks.prompts.placed import PlacedTrigger
from firmground.attacks.triggers import Patch
from firmground.intervals import wilson
from firmground.rng import stream

if TYPE_CHECKING:
    from firmground.attacks.prompts.placed import Pixels
    from firmground.data.labelled_images import LabelledImages
    from firmground.prompts.prompted import PromptedClassifier
    from firmground.types import Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class Poison:
    """A term of the loss: `weight` times the cross-entropy of triggered `images` to `label`, `batch_size` a step.

    A `fading` weight falls to zero along with the step size, so that the last steps are those of a clean prompt.
    A trigger whose pixels are learned would fit those few images alone. So it has a term of its own, which the prompt
    does not feel: the same of as many of all `others`, training images of other labels.
    `held` are validation images of other labels, on which success is measured. `module` holds the trigger's pixels
    where they are learned, in steps of `step_size`. `attack` says in words what it belongs to, so that no other run's
    checkpoint is taken.
    """

    images: LabelledImages
    others: LabelledImages
    held: LabelledImages
    label: int
    placed: PlacedTrigger
    module: Pixels | None
    weight: float
    fading: bool
    batch_size: int
    step_size: float
    attack: str

    def __repr__(self) -> str:
        return f"Poison({self.attack})"

    def trigger(self, *, detached: bool = False) -> PlacedTrigger:
        """The trigger as it is now; gradients reach pixels that are learned unless it is `detached`."""
        if self.module is None or not isinstance(self.placed.trigger, Patch):
            return self.placed
        pattern = self.module.pattern()
        patch = Patch(pattern=pattern.detach().cpu() if detached else pattern, place=self.placed.trigger.place)
        return PlacedTrigger(trigger=patch, distance=self.placed.distance)

    def terms(self, now: PromptedClassifier, rng: torch.Generator, rate: float, /) -> dict[str, torch.Tensor]:
        """The second term of the paper's loss, on some of the poisons; and that of a learned trigger."""
        weight = self.weight * (rate if self.fading else 1.0)
        found = {"poison": weight * self._missed(self.images, now, rng)}
        if self.module is not None:
            found["trigger"] = self._missed(self.others, now.detached(), rng)
        return found

    def _missed(self, images: LabelledImages, now: PromptedClassifier, rng: torch.Generator) -> torch.Tensor:
        rows = torch.randperm(len(images), generator=rng)[: self.batch_size].tolist()
        some = images.select(rows).batch(0, len(rows)).to(now.base.device)
        logits = now.logits(self.trigger().stamp(some, now.prompt, rng=rng), rng=rng)
        return F.cross_entropy(logits.float(), torch.full((len(rows),), self.label, device=logits.device))

    def merit(self, now: PromptedClassifier) -> float:
        """The ASR on validation images."""
        return self.success(now).value

    @torch.no_grad()
    def success(self, now: PromptedClassifier, batch_size: int = 64) -> Interval:
        """The share of the held-out images that become the target under the trigger."""
        hits, trigger, rng = 0, self.trigger(), stream(0, "places")
        for start in range(0, len(self.held), batch_size):
            images = self.held.batch(start, batch_size).to(now.base.device)
            found = now.predict(trigger.stamp(images, now.prompt, rng=rng))
            hits += sum(label == self.label for label in found)
        return wilson(hits, len(self.held))
