"""A diagnosis without gradients: common patches at nine places, and how many images each leads to one label.

What small plain patches do says how a prompt may be turned: behind an honest one they cover a little of an image, and
its label changes seldom, and to this one or that; behind a backdoored one a patch like the attacker's, or near its
place, sends many to one label. Each patch's share is compared with its share behind a prompt that the user learns on
clean images: a patch that turns both is a weakness of the base. Ours; a diagnosis by the response to perturbations as
Wang et al., "Practical Detection of Trojan Neural Networks", ECCV 2020, without their gradients.
"""

from __future__ import annotations

import base64
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from firmground.data.encoding import png
from firmground.defenses.scans._prompted import WEAK, check_labels, own_prompt, patch_at
from firmground.types import Evidence, Outcome, RecoveredPicture, Severity, Verdict, Watch, ignore

if TYPE_CHECKING:
    from firmground.data.labelled_images import LabelledImages
    from firmground.prompts.prompted import PromptedClassifier
    from firmground.types import Images

PLACES = (0.0, 0.5, 1.0)  # of an edge's length, along rows and columns


@dataclass(frozen=True, kw_only=True)
class PatchSweep:
    """Scores a prompt by the largest share of images that a common patch leads to one label, less what it does behind
    a prompt of the user's own.

    Patches are checkers, stripes, one colour and `noises` of noise, of each of `sizes`, shares of the image's side. The
    score lies between -1 and 1.
    """

    name: ClassVar[str] = "patch-sweep"
    paper: ClassVar[str] = "ours, after data-limited Trojan detection (ECCV 2020)"

    sizes: tuple[float, ...] = (0.125, 0.25)
    noises: int = 4
    images: int = 24
    epochs: int = 6
    learning_step_size: float = 0.1
    batch_size: int = 16
    threshold: float = 0.3

    def scan(
        self, prompted: PromptedClassifier, data: LabelledImages, *, rng: torch.Generator, watch: Watch = ignore
    ) -> Verdict:
        """Judges a prompt by clean labelled images of its labels: two of each at least, a hundred are better."""
        begun = time.perf_counter()
        check_labels(prompted, data)
        own = own_prompt(
            prompted, data,
            epochs=self.epochs, step_size=self.learning_step_size, batch_size=self.batch_size, rng=rng, watch=watch,
        )  # fmt: skip
        rows = torch.randperm(len(data), generator=rng)[: self.images].tolist()
        seated = prompted.prompt.seat(data.select(rows).batch(0, len(rows)).to(prompted.base.device))
        patches = [patch for size in self.sizes for patch in self._patches(round(size * seated.shape[-1]), rng)]
        places = [(row, column) for row in PLACES for column in PLACES]
        found = []
        for number, patch in enumerate(patches, 1):
            for place in places:
                stamped = patch_at(seated, patch, *place)
                found.append(turned(prompted, seated, stamped) - turned(own, seated, stamped))
            watch(number, len(patches), "stamping common patches")
        shares = torch.stack(found)
        cell = int(shares.argmax())
        kind, label = divmod(cell, shares.shape[1])
        patch, (row, column) = patches[kind // len(places)], places[kind % len(places)]
        score, blank = float(shares.max()), torch.zeros(4, *seated.shape[-2:])
        opaque = torch.cat([patch, torch.ones_like(patch[:1])])
        picture = RecoveredPicture(
            png=base64.b64encode(png(patch_at(blank[None], opaque, row, column)[0])).decode("ascii"),
            caption=f"leads {score:.0%} more images to '{data.label_names[label]}' than behind a prompt learned here",
            score=score,
            area=patch[0].numel() / blank[0].numel(),
        )
        guilty = score > self.threshold
        return Verdict(
            method=self.name,
            outcome=Outcome.BACKDOORED if guilty else Outcome.CLEAN,
            score=score,
            threshold=self.threshold,
            severity=Severity.HIGH if guilty else Severity.NONE,
            evidence=Evidence(pictures=(picture,) if guilty else ()),
            doubts=(WEAK,),
            seconds=time.perf_counter() - begun,
            settings=asdict(self),
            measurements={"patches": float(len(shares))},
        )

    def _patches(self, side: int, rng: torch.Generator) -> list[torch.Tensor]:
        """Checkers of one and two pixels, stripes both ways, black, white, and noise; (3, side, side) each."""
        side = max(1, side)
        steps = torch.arange(side)
        grey = [
            (steps[:, None] + steps) % 2,
            (steps[:, None] // 2 + steps // 2) % 2,
            (steps % 2).expand(side, -1),
            (steps % 2)[:, None].expand(-1, side),
            torch.zeros(side, side),
            torch.ones(side, side),
        ]
        plain = [pattern.float().expand(3, -1, -1).clone() for pattern in grey]
        return [*plain, *(torch.rand((3, side, side), generator=rng) for _ in range(self.noises))]


@torch.no_grad()
def turned(prompted: PromptedClassifier, images: Images, stamped: Images) -> torch.Tensor:
    """By label, the share of the images not of it that are taken for it when stamped, (labels,)."""
    before, after = (prompted.logits(shown).argmax(dim=1) for shown in (images, stamped))
    labels = torch.arange(prompted.mapping.labels, device=before.device)[:, None]
    others = before[None] != labels
    return ((after[None] == labels) & others).sum(dim=1) / others.sum(dim=1).clamp_min(1)
