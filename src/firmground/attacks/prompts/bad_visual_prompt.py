"""BadVisualPrompt: a provider learns a visual prompt under which triggered images become the target (arXiv 2310.07632).

The prompt minimises CE(M(x + prompt), y) + weight * CE(M(T(x) + prompt), target) with the model M frozen: all images
in the first term, the poisoned share of them in the second. A prompt moves what a trigger does least where they are far
from one another, so an `optimised` trigger learns its pixels along, on all images of other labels; the prompt is still
learned on the poisoned share alone. Departs from the paper, of which no code is public: the second term is the mean
over a batch of `poison_batch` poisons in every step, so that the share says how many different images are poisoned and
`weight` alone how much they count; the epoch is picked by validation accuracy and success.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from firmground import __version__
from firmground.attacks.poisoning import pair_sha256
from firmground.attacks.poisoning.poisoned import describe
from firmground.attacks.prompts.placed import Pattern, Pixels, PlacedTrigger, pattern_of
from firmground.attacks.prompts.poison import Poison
from firmground.attacks.triggers import ImageTrigger, Patch
from firmground.attacks.triggers._images import Place
from firmground.errors import DataError
from firmground.prompts.seating import seated
from firmground.prompts.visual_prompting import VisualPrompting, classifier_for, learned, split_rows
from firmground.rng import stream
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from pathlib import Path

    from firmground.data.labelled_images import LabelledImages
    from firmground.models.classifiers import ImageClassifier
    from firmground.models.dual import DualEncoder
    from firmground.prompts.prompted import LearnedPrompt
    from firmground.types import Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class PlantedPrompt:
    """A backdoored prompt and the truth about it.

    `trigger.stamp(images, learned.prompt)` gives images that the prompt takes for `target`, a label's name. `rows` are
    the images of the given data that were poisoned; `sha256` are the hashes of them seated and stamped, in 8 bits
    with the target's name (see `pair_sha256`). `success` is the ASR on validation images of other
    labels, which had a say in the epoch.
    """

    learned: LearnedPrompt
    trigger: PlacedTrigger
    target: str
    rows: tuple[int, ...]
    sha256: tuple[str, ...]
    success: Interval
    attack: str
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class BadVisualPrompt:
    """Learns a prompt with a backdoor towards `target`, the name of a label.

    The trigger is a patch of `size` times the side of what the prompt leaves to the image, with a `pattern` checker,
    noise or stripes, at `place`, `distance` pixels from the edge; or any `trigger` for images. An `optimised` patch
    begins as its pattern and learns, in steps of `trigger_step_size` of its pixels' logits. `rate` is the share of the
    training images that is poisoned, `weight` the paper's lambda; `fading`, it falls to zero along with the step size
    (ours). `learning` is how the prompt is learned.
    """

    name: ClassVar[str] = "bad-visual-prompt"
    paper: ClassVar[str] = "BadVisualPrompt (arXiv 2310.07632)"

    target: str
    rate: float = 0.05
    weight: float = 1.0
    fading: bool = False
    size: float = 16 / 164
    place: Place = "bottom-right"
    distance: int = 0
    pattern: Pattern = "checker"
    optimised: bool = False
    trigger: ImageTrigger | None = None
    trigger_step_size: float = 0.3
    poison_batch: int = 16
    learning: VisualPrompting = field(default_factory=VisualPrompting)

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1 or not 0 < self.size <= 1:
            raise DataError(f"expected a rate and a size above 0 and at most 1, got {self.rate} and {self.size}")
        if not (self.weight > 0 and self.trigger_step_size > 0) or self.distance < 0 or self.poison_batch < 1:
            raise DataError(
                f"expected a positive weight and trigger_step_size, a distance of 0 or more and a poison_batch of 1 or "
                f"more, got {self.weight}, {self.trigger_step_size}, {self.distance} and {self.poison_batch}"
            )
        if self.learning.resize:
            raise DataError("an attack stamps images of a known size; give a width, and leave out resize")
        if self.trigger is not None and self.optimised:
            raise DataError("a given trigger has its pixels already; leave it out to have a patch optimised")

    def implant(
        self,
        base: ImageClassifier | DualEncoder,
        data: LabelledImages,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
        resume: Path | None = None,
    ) -> PlantedPrompt:
        """Learns the prompt on a frozen base, which stays as it was. Raises `DataError` where the target is no label.

        `resume` is a folder of checkpoints, as in `VisualPrompting.fit`.
        """
        if self.target not in data.label_names:
            raise DataError(f"there is no label {self.target!r}; expected one of: {', '.join(data.label_names)}")
        label = data.label_names.index(self.target)
        classifier = classifier_for(base, data)
        rest, checked = split_rows(data, self.learning.validation, rng)
        train, held = data.select(rest), data.select(checked)
        rows = self._draw(train, label, rng)
        shape = self.learning.shape(classifier)
        placed, pixels = self._trigger(shape.inner, rng)
        poison = Poison(
            images=seated(train.select(rows), shape),
            others=train.select([row for row, other in enumerate(train.labels) if other != label]),
            held=seated(held.select([row for row, other in enumerate(held.labels) if other != label]), shape),
            label=label,
            placed=placed,
            module=pixels,
            weight=self.weight,
            fading=self.fading,
            batch_size=self.poison_batch,
            step_size=self.trigger_step_size,
            attack=repr(self),
        )
        honest = learned(self.learning, classifier, train, held, rng=rng, watch=watch, resume=resume, addition=poison)
        return self._planted(honest, poison, classifier, [rest[row] for row in rows])

    def _draw(self, train: LabelledImages, label: int, rng: torch.Generator) -> list[int]:
        """Rows to poison, none of them of the target."""
        others = [row for row, other in enumerate(train.labels) if other != label]
        count = min(len(others), max(1, round(self.rate * len(train))))
        return sorted(others[i] for i in torch.randperm(len(others), generator=rng)[:count].tolist())

    def _trigger(self, inner: int, rng: torch.Generator) -> tuple[PlacedTrigger, Pixels | None]:
        if self.trigger is not None:
            return PlacedTrigger(trigger=self.trigger, distance=self.distance), None
        side = max(1, round(self.size * inner))
        if side + 2 * self.distance > inner:
            raise DataError(f"a patch of {side} pixels, {self.distance} from the edge, does not fit images of {inner}")
        pattern = pattern_of(self.pattern, side, rng)
        placed = PlacedTrigger(trigger=Patch(pattern=pattern, place=self.place), distance=self.distance)
        return placed, Pixels(pattern) if self.optimised else None

    def _planted(self, honest: LearnedPrompt, poison: Poison, base: ImageClassifier, rows: list[int]) -> PlantedPrompt:
        placed = poison.trigger(detached=True)
        success = poison.success(honest.on(base))
        seated = honest.prompt.seat(poison.images.batch(0, len(rows)))
        hashes = [pair_sha256(image, self.target) for image in placed.stamp_seated(seated, rng=stream(0, "poisons"))]
        planted = {
            "attack": self.name,
            "target": self.target,
            "trigger": {"method": type(placed.trigger).__name__} | describe(placed.trigger),
            "distance": self.distance,
            "settings": describe(self),
            "firmground": __version__,
            "poisons": len(rows),
            "poisons_sha256": hashes,
        }
        return PlantedPrompt(
            learned=replace(honest, method=self.name, settings=describe(self), planted=planted),
            trigger=placed,
            target=self.target,
            rows=tuple(rows),
            sha256=tuple(hashes),
            success=success,
            attack=self.name,
            settings=describe(self),
        )
