"""Reversal: turns tokens away, as PRM does, turns round what sets each apart, and does so to what views show too.

Ours, after PRM (Zhang et al., BMVC 2024, arXiv 2403.12693) and input diversity (Xie et al., CVPR 2019, 1803.06978).

Tokens share most of their direction: a mean that says nothing about the image, in channels of very different strength.
PRM's cosine is taken up by it, counts an empty place as much as an object, and rewards any direction that leads away.
So a second term looks at features standardised, channel by channel, by the clean tokens of the batch, z = (F - mean) /
deviation. Of the whole image, made small is the sum over layers of

    alignment * mean over places of cos(F', F)  +  sum over places of <z', z> / sum over places of <z, z>,

and `pooled` times the cosine of the embeddings. The second term is 1 for the clean image, 0 once nothing is left of
what set its tokens apart, and negative where that is reversed; a place counts in it as much as it stands out.

What stands on an encoder often reads embeddings of parts of the image. So a share `views` of the steps looks at a view
of each image, zoomed and shifted by chance, and makes the cosine between its embedding and that of the same view of the
clean image small. Steps are those of momentum, whose gradients are normalised: both kinds count by how often they
are taken, not by how large their losses are. At every step the image has noise on it, so that the change does not lean
on the last bit of the surrogate's weights. A step at views costs a forward pass of the clean image more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from firmground.attacks.evasion._embedding import similarity
from firmground.attacks.evasion._layers import Tokens, chosen_layers, cosines, units_of
from firmground.attacks.evasion._search import Objective, Search, run
from firmground.attacks.evasion._views import through, windows
from firmground.bounds import FROM_0, SHARE, check_bounds
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from firmground.attacks.evasion.perturbed import Perturbed
    from firmground.models.surrogates import Encoders, Surrogate
    from firmground.types import Embeddings, Images

FLOOR = 1e-3  # of a layer's deviation: a channel that never changes says nothing


@dataclass(frozen=True, kw_only=True)
class Reversal(Search):
    """Turns tokens of the whole image away and round, and the embeddings of its views away.

    `alignment` and `pooled` are the weights of the cosines of tokens and of embeddings; `views` is the share of steps
    that look at views, and `zoom` the range of their zoom; `noise` is the deviation of what is added to the image at
    every step, as a share of epsilon.
    """

    name: ClassVar[str] = "reversal"
    paper: ClassVar[str] = "Ours, after Zhang et al., BMVC 2024"
    steps: int = 250
    optimizer: Literal["sign", "momentum", "nesterov", "adam"] = "momentum"
    layers: tuple[int, ...] | None = None
    tokens: Tokens = "all"
    alignment: float = 6.0
    pooled: float = 10.0
    views: float = 0.5
    zoom: tuple[float, float] = (0.7, 1.4)
    noise: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, alignment=FROM_0, pooled=FROM_0, views=SHARE, zoom=(0.05, 20.0), noise=FROM_0)

    def perturb(self, encoder: Encoders, images: Images, *, rng: torch.Generator, watch: Watch = ignore) -> Perturbed:
        """Perturbs images, (batch, 3, height, width) in [0, 1]; see `Perturbed`. Raises `DataError`."""

        def begin(surrogate: Surrogate, clean: Images, target: Images) -> Objective:
            """What is to fall: the agreement with the clean images, of the whole or of a drawn window, under noise."""
            whole = self._whole(surrogate, clean)

            def objective(images: Images) -> torch.Tensor:
                """One value an image, (batch,)."""
                drawn = torch.randn(images.shape, generator=rng, device=rng.device).to(images)
                noisy = images + self.noise * self.epsilon * drawn
                stepping = torch.is_grad_enabled()  # before and after the search, whole images are judged
                if not stepping or float(torch.rand((), generator=rng, device=rng.device)) >= self.views:
                    return whole(noisy)
                matrices = windows(len(clean), self.zoom, rng)
                with torch.no_grad():
                    before = surrogate.embed(through(clean, matrices))
                return similarity(surrogate.embed(through(noisy, matrices)), before)

            return objective

        return run(self, encoder, images, begin, rng=rng, watch=watch)

    def _whole(self, surrogate: Surrogate, clean: Images) -> Objective:
        """The objective of whole images."""
        layers, before = self._look(surrogate, clean)
        held = [Held.of(layer) for layer in layers]

        def objective(images: Images) -> torch.Tensor:
            seen, embedded = self._look(surrogate, images)
            parts = [own.loss(layer, self.alignment) for layer, own in zip(seen, held, strict=True)]
            return torch.stack(parts).sum(dim=0) + self.pooled * similarity(embedded, before)

        return objective

    def _look(self, surrogate: Surrogate, images: Images) -> tuple[list[torch.Tensor], Embeddings]:
        features = surrogate.features(images)
        return chosen_layers(surrogate, features, images, self.layers, self.tokens), features.embeddings


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """A layer's clean tokens: `units` of length one, and `weights`, both (batch, places, width).

    A layer's product with `weights`, less `offset`, (batch,), is its standardised agreement: standardising is folded
    into both, so that a step costs one product.
    """

    units: torch.Tensor
    weights: torch.Tensor
    offset: torch.Tensor

    @classmethod
    def of(cls, layer: torch.Tensor) -> Held:
        """Standardises clean tokens, (batch, places, width), by the means and deviations of their channels."""
        mean = layer.mean(dim=(0, 1))
        deviation = layer.std(dim=(0, 1), correction=0) + FLOOR * layer.std(correction=0)
        z = (layer - mean) / deviation
        weights = z / deviation / z.square().sum(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
        (units,) = units_of([layer])
        return cls(units=units, weights=weights, offset=(weights * mean).sum(dim=(1, 2)))

    def loss(self, layer: torch.Tensor, alignment: float) -> torch.Tensor:
        """Both terms for one layer, (batch,)."""
        agreement = (layer * self.weights).sum(dim=(1, 2)) - self.offset
        return agreement + alignment * cosines(layer, self.units).mean(dim=1)
