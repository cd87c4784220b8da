"""Shadow prompts: what a user who has only clean images can learn of backdoored prompts, by making some.

Xu et al., "Detecting AI Trojans Using Meta Neural Analysis" (MNTD), S&P 2021 (arXiv 1910.03137): shadow models, half of
them with a backdoor whose trigger and target are drawn ("jumbo" learning), and a classifier that tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from firmground.defenses.scans._prompted import patch_at
from firmground.errors import DataError
from firmground.prompts.learning import learn
from firmground.prompts.visual_prompting import VisualPrompting, split_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.data.labelled_images import LabelledImages
    from firmground.prompts.prompted import PromptedClassifier
    from firmground.types import Watch

SOME = 8  # stamped images a step


@dataclass(frozen=True, kw_only=True, eq=False)
class Jumbo:
    """A backdoor that is drawn: a patch of noise of any size up to a third, at any place, towards any label."""

    images: LabelledImages
    patch: torch.Tensor
    place: tuple[float, float]
    label: int
    module: torch.nn.Module | None = None
    step_size: float = 0.0  # nothing is learned beside the prompt

    def terms(self, now: PromptedClassifier, rng: torch.Generator, _: float, /) -> dict[str, torch.Tensor]:
        """The cross-entropy of some stamped images to the label."""
        logits = self._stamped(now, torch.randperm(len(self.images), generator=rng)[:SOME].tolist())
        return {"shadow": F.cross_entropy(logits, torch.full((len(logits),), self.label, device=logits.device))}

    def merit(self, now: PromptedClassifier, /) -> float:
        """The share of some stamped images that become the label."""
        found = self._stamped(now, range(min(4 * SOME, len(self.images)))).argmax(dim=1)
        return float((found == self.label).float().mean())

    def _stamped(self, now: PromptedClassifier, rows: Sequence[int]) -> torch.Tensor:
        seated = now.prompt.seat(self.images.select(rows).batch(0, len(rows)).to(now.base.device))
        return now.logits(patch_at(seated, self.patch, *self.place)).float()


def shadows(
    prompted: PromptedClassifier,
    data: LabelledImages,
    count: int,
    *,
    epochs: int,
    step_size: float,
    batch_size: int,
    rng: torch.Generator,
    watch: Watch,
) -> list[tuple[PromptedClassifier, bool]]:
    """So many prompts like the given one, learned on clean images, every other with a drawn backdoor."""
    if count < 4 or count % 2:
        raise DataError(f"expected an even number of shadow prompts, 4 or more, got {count}")
    shape = prompted.prompt.shape
    how = VisualPrompting(
        form=shape.form,
        mapping=prompted.mapping.kind,
        epochs=epochs,
        batch_size=batch_size,
        step_size=step_size,
        mapping_step_size=step_size / 10,
    )
    made = []
    for number in range(count):
        rest, held = split_rows(data, how.validation, rng)
        backdoor = _jumbo(data.select(rest), shape.inner, rng) if number % 2 else None
        found = learn(
            prompted.base, data.select(rest), how, shape,
            rng=rng, watch=_counted(watch, number + 1, count), held=data.select(held), addition=backdoor,
        )  # fmt: skip
        made.append((replace(prompted, prompt=found.prompt, mapping=found.mapping), backdoor is not None))
    return made


def _counted(watch: Watch, number: int, count: int) -> Watch:
    """The same watch, told which of the shadows is learned: each is a stage of its own."""

    def counting(step: int, total: int, stage: str, **scalars: float) -> None:
        watch(step, total, f"{stage} {number} of {count}", **scalars)

    return counting


def _jumbo(data: LabelledImages, inner: int, rng: torch.Generator) -> Jumbo:
    drawn = torch.rand(3, generator=rng).tolist()
    side = max(1, round((0.1 + 0.23 * drawn[0]) * inner))
    label = int(torch.randint(len(data.label_names), (), generator=rng))
    return Jumbo(
        images=data.select([row for row, other in enumerate(data.labels) if other != label]),
        patch=torch.rand((3, side, side), generator=rng),
        place=(drawn[1], drawn[2]),
        label=label,
    )
