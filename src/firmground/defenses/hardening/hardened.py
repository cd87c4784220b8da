"""Adversarial fine-tuning of an image tower, written once: the inner attack, the training, what comes of it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from firmground import __version__
from firmground.bounds import ABOVE_0, FROM_1, check_bounds
from firmground.errors import DataError
from firmground.models.contrastive import finished, share
from firmground.models.dual import IMAGE_PARTS
from firmground.models.training import Training, fit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from firmground.data.pairs import PairBatch, PairSet
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images, Watch

    Wanted = Callable[[PairBatch, slice], torch.Tensor]
    Loss = Callable[[Embeddings, torch.Tensor], torch.Tensor]

LEVEL = 1 / 255


@dataclass(frozen=True, kw_only=True)
class Adversarial(Training):
    """What all adversarial fine-tunings set: how far images are perturbed in training, and how.

    `epsilon` bounds each pixel's change, in [0, 1]; `inner_steps` of `inner_step_size` are taken from a random start
    along the sign of the gradient.
    """

    epochs: int = 2
    batch_size: int = 128
    step_size: float = 1e-5
    warm_up: float = 0.07
    weight_decay: float = 1e-4
    epsilon: float = 4 / 255
    inner_steps: int = 10
    inner_step_size: float = 1 / 255

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.epsilon <= 1:
            raise DataError(f"expected an epsilon above 0 and at most 1, in units of [0, 1] pixels, got {self.epsilon}")
        check_bounds(self, inner_steps=FROM_1, inner_step_size=ABOVE_0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Hardened:
    """A hardened copy of an encoder, whose text tower is the old one, and what was done to it.

    `losses` are each term's mean over the last steps; `kept` is the mean cosine, over the last batch's clean images,
    between the old and the new embedding: what users of the old embeddings will notice. `settings` rebuilds the method.
    """

    encoder: DualEncoder
    method: str
    settings: dict[str, Any]
    losses: dict[str, float]
    kept: float
    steps: int
    seconds: float

    def card(self) -> str:
        """The text of the saved model's card (Markdown)."""
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        epsilon = 255 * float(self.settings["epsilon"])
        return (
            f"This is `{self.encoder.source}` after adversarial fine-tuning by Firmground {__version__} on images "
            f"perturbed by up to {epsilon:.3g}/255. How far it resists such perturbations is to be measured; it is not "
            "proof against them, and other attacks were not considered.\n\n"
            f"- Method: `{self.method}` ({settings})\n"
            f"- Steps: {self.steps}\n"
            f"- Mean cosine between old and new embeddings of clean images: {self.kept:.3f}\n"
        )


class Tower(torch.nn.Module):
    """The image tower of an encoder as a module; its batch norms keep the statistics that they came with."""

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.model = encoder.model
        self.encoder = encoder

    def train(self, mode: bool = True) -> Tower:
        """Stays in evaluation mode: statistics of perturbed images are not those that the encoder will meet."""
        return super().train(False)

    def forward(self, images: Images) -> Embeddings:
        """Unit embeddings, (batch, width), float32."""
        return self.encoder.embed_images(images).float()


def harden_by(
    method: Any,
    encoder: DualEncoder,
    images: PairSet,
    wanted: Wanted,
    loss: Loss,
    *,
    rng: torch.Generator,
    watch: Watch,
    resume: Path | None,
) -> Hardened:
    """Trains a copy's image tower so that `loss` is small on the images that make it large.

    `wanted` gives what the rows of a batch are compared with; `loss` takes embeddings, (batch, width), and that, and
    gives one number an image.
    """
    begun = time.perf_counter()
    copied = encoder.cast(torch.float32)
    for name, value in copied.model.named_parameters():
        value.requires_grad_(name.startswith(IMAGE_PARTS))
    kept = [0.0]

    def objective(tower: Any, batch: PairBatch, draws: torch.Generator) -> dict[str, torch.Tensor]:
        """The loss on the worst images within epsilon; notes how far clean ones are kept."""
        plain: Tower = getattr(tower, "module", tower)
        own, _ = share(len(batch))
        clean = batch.images[own].to(copied.device)
        target = wanted(batch, own)
        adversarial = worst(method, plain, clean, lambda found: loss(found, target), draws)
        with torch.no_grad():
            kept[0] = float((plain(clean) * encoder.embed_images(clean).float()).sum(dim=1).mean())
        return {method.name: loss(tower(adversarial), target).sum() / len(batch)}

    run: dict[str, str | int] = {"stage": method.name, "pairs": len(images)}
    fitted = fit(
        Tower(copied), images, method, objective, rng=rng, watch=watch, stage=method.name, resume=resume, run=run
    )
    trained = finished(copied, encoder, fitted)
    return Hardened(
        encoder=trained.encoder,
        method=method.name,
        settings=asdict(method),
        losses=trained.losses,
        kept=kept[0],
        steps=trained.steps,
        seconds=time.perf_counter() - begun,
    )


def worst(
    how: Adversarial,
    tower: Tower,
    clean: Images,
    loss: Callable[[Embeddings], torch.Tensor],
    rng: torch.Generator,
) -> Images:
    """Images within `how.epsilon` of the clean ones at which the loss is large: projected gradient ascent.

    The weights take no gradient meanwhile.
    """
    trained = [value for value in tower.parameters() if value.requires_grad]
    for value in trained:
        value.requires_grad_(False)
    noise = torch.rand(clean.shape, generator=rng, device=rng.device).to(clean)
    found = (clean + (2 * noise - 1) * how.epsilon).clamp(0, 1)
    for _ in range(how.inner_steps):
        found.requires_grad_(True)
        (slope,) = torch.autograd.grad(loss(tower(found)).sum(), [found])
        stepped = found.detach() + how.inner_step_size * slope.sign()
        found = (clean + (stepped - clean).clamp(-how.epsilon, how.epsilon)).clamp(0, 1)
    for value in trained:
        value.requires_grad_(True)
    return found


def shifts(
    encoder: DualEncoder, original: DualEncoder, images: Images, how: Adversarial, *, rng: torch.Generator
) -> torch.Tensor:
    """How far the embeddings of `encoder` can be driven from where `original` has the clean images, (batch,).

    Squared distances, in [0, 4], of unit embeddings, after the search of `how`; 0.5 and more is another meaning.
    """
    with torch.no_grad():
        before = original.embed_images(images.to(original.device)).float()

    def apart(now: Embeddings) -> torch.Tensor:
        return (now - before.to(now.device)).square().sum(dim=1)

    tower = Tower(encoder)
    found = worst(how, tower, images.to(encoder.device), apart, rng)
    with torch.no_grad():
        return apart(tower(found)).cpu()
