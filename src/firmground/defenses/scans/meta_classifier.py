"""Meta-classifiers: a prompt is judged as it looks or as it answers, by what tells shadow prompts apart.

Xu et al., "Detecting AI Trojans Using Meta Neural Analysis" (MNTD), S&P 2021 (arXiv 1910.03137). Departs from the
paper: the queries are clean images of the user and the same with drawn patches, and are not learned; the classifier is
a logistic regression, for a user can afford a handful of shadow prompts and not thousands of shadow models.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy
import torch
import torch.nn.functional as F

from firmground.defenses.scans._prompted import WEAK, check_labels, patch_at
from firmground.defenses.scans._shadows import shadows
from firmground.errors import DataError
from firmground.types import Outcome, Severity, Verdict, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.data.labelled_images import LabelledImages
    from firmground.prompts.prompted import PromptedClassifier
    from firmground.prompts.visual import VisualPrompt


@dataclass(frozen=True, kw_only=True, eq=False)
class Separator:
    """A logistic regression over standardised features; a score above 0 is on the backdoored side."""

    mean: numpy.ndarray
    scale: numpy.ndarray
    weight: numpy.ndarray
    bias: float

    @classmethod
    def fit(cls, features: torch.Tensor, backdoored: Sequence[bool], *, strength: float = 0.05) -> Separator:
        """Fits on (prompts, width). Raises `DataError` where all are of one kind."""
        from sklearn.linear_model import LogisticRegression

        if len(set(backdoored)) < 2:
            raise DataError("a meta-classifier needs clean and backdoored prompts to learn from")
        values = features.double().numpy()
        mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-6
        model = LogisticRegression(C=strength, max_iter=2000).fit((values - mean) / scale, list(backdoored))
        return cls(mean=mean, scale=scale, weight=model.coef_[0], bias=float(model.intercept_[0]))

    def score(self, features: torch.Tensor) -> float:
        """The log-odds that a prompt with these features, (width,), is backdoored."""
        values = (features.double().numpy() - self.mean) / self.scale
        return float(values @ self.weight) + self.bias


@dataclass(frozen=True, kw_only=True)
class MetaClassifier:
    """Scores a prompt by the log-odds of a classifier over `features` of shadow prompts, half of them backdoored.

    `features` are "outputs", the answers to `queries` images, or "pixels", statistics of the prompt itself.
    """

    name: ClassVar[str] = "meta-classifier"
    paper: ClassVar[str] = "MNTD (S&P 2021, arXiv 1910.03137)"

    features: str = "outputs"
    shadows: int = 8
    queries: int = 32
    epochs: int = 6
    learning_step_size: float = 0.1
    batch_size: int = 16
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.features not in ("outputs", "pixels"):
            raise DataError(f"expected features outputs or pixels, got {self.features!r}")

    def scan(
        self, prompted: PromptedClassifier, data: LabelledImages, *, rng: torch.Generator, watch: Watch = ignore
    ) -> Verdict:
        """Judges a prompt by clean labelled images of its labels, from which the shadow prompts are learned."""
        begun = time.perf_counter()
        check_labels(prompted, data)
        made = shadows(
            prompted, data, self.shadows,
            epochs=self.epochs, step_size=self.learning_step_size, batch_size=self.batch_size, rng=rng, watch=watch,
        )  # fmt: skip
        asked = draw_queries(prompted, data, self.queries, rng)
        separator = Separator.fit(
            torch.stack([self.describe(shadow, asked) for shadow, _ in made]), [bad for _, bad in made]
        )
        score = separator.score(self.describe(prompted, asked))
        guilty = score > self.threshold
        return Verdict(
            method=self.name,
            outcome=Outcome.BACKDOORED if guilty else Outcome.CLEAN,
            score=score,
            threshold=self.threshold,
            severity=Severity.HIGH if guilty else Severity.NONE,
            doubts=(f"it has learned from {self.shadows} shadow prompts only", WEAK) if self.shadows < 64 else (WEAK,),
            seconds=time.perf_counter() - begun,
            settings=asdict(self),
        )

    def describe(self, prompted: PromptedClassifier, asked: torch.Tensor) -> torch.Tensor:
        """The features of one prompt, (width,)."""
        return pixels_of(prompted.prompt) if self.features == "pixels" else outputs_of(prompted, asked)


def draw_queries(prompted: PromptedClassifier, data: LabelledImages, count: int, rng: torch.Generator) -> torch.Tensor:
    """Seated images to ask with, (count, 3, inner, inner): clean ones, and every other with a drawn patch."""
    rows = torch.randint(len(data), (count,), generator=rng).tolist()
    seated = prompted.prompt.seat(data.select(rows).batch(0, count).to(prompted.base.device))
    stamped = []
    for number, image in enumerate(seated):
        side = max(1, seated.shape[-1] // 4)
        row, column = torch.rand(2, generator=rng).round().tolist()
        patch = torch.rand((3, side, side), generator=rng).round()
        stamped.append(patch_at(image[None], patch, row, column)[0] if number % 2 else image)
    return torch.stack(stamped)


@torch.no_grad()
def outputs_of(prompted: PromptedClassifier, asked: torch.Tensor) -> torch.Tensor:
    """What a prompt answers: the probabilities of every label for every query, (queries * labels,)."""
    return prompted.logits(asked).softmax(dim=1).flatten().cpu()


def pixels_of(prompt: VisualPrompt) -> torch.Tensor:
    """What a prompt looks like, (any,): by channel, mean, spread, share at a bound and roughness of nine parts."""
    pixels = prompt.pixels.detach().cpu()
    rough = (pixels[:, 1:, 1:] - pixels[:, :-1, :-1]).abs()
    rough = F.pad(rough, (0, 1, 0, 1))
    bound = ((pixels - prompt.shape.lowest) * (1 - pixels) < 0.01).float()
    maps = torch.cat([pixels, pixels.square(), bound, rough])
    return F.adaptive_avg_pool2d(maps[None], 3).flatten()
