"""Disarm: find the patterns to which the encoder answers, and teach its image tower to look past them, in rounds.

(1) Search (`inducers`): faint and small patterns, boxes, waves and warps that make all images embed alike. A backdoor
is the shortest way there, so where there is one, these take the way that its trigger takes, whatever that looks like.
(2) Distillation: the suspect is its own teacher. It sees a clean image x; its copy sees x and a covered one, C(x), and
has to embed both where the suspect embeds x,

    kept (1 - cos(f(x), g(x))) + covered (1 - cos(f(C(x)), g(x))) + captions InfoNCE(f(x), T)

with f the copy, g the suspect, T the suspect's texts. A clean image says nothing of a backdoor, so the suspect can
teach what it knows of clean images without passing the backdoor on, and captions are not needed to hold accuracy. Most
of the coverings are found patterns (what has a place moves to others, what is faint varies in strength), the rest
generic ones (`coverings`, as in `Restore`). (3) Again: the copy is searched as the suspect was, for what still leads it
astray; half of the found coverings are from the last search. Here only the image tower is trained. (4) Texts: the
suspect's text tower has learned poisons as well, and holds the target's captions where nothing but a trigger is seen.
With the image tower at rest, it is taught by InfoNCE where the images of clean pairs now are, and where covered ones
are: these choose among texts, texts not among them.

Ours, from unlearning what inverted triggers do (Wang et al., Neural Cleanse, S&P 2019; Zeng et al., I-BAU, ICLR 2022),
attention distillation (Li et al., NAD, ICLR 2021) and `Restore`. Weights, rounds and waves were chosen on three victims
(BadNet, SIG, text), after Blended and stripes had been looked at too; warps and the training of the texts on WaNet,
after BadCLIP had been looked at: 8.9 % of WaNet were left with the suspect's texts, 3.8 % with mean embeddings of clean
images in their place. Where texts had to choose among covered images, too, a text tower that keeps templates apart
(trained with InfoNCE + SSL) favoured some classes: 83 in place of 95 % were right (BadNet), for the same ASR. It wants
many clean images and large steps: of a few thousand the copy learns the suspect by heart, backdoor and all, before it
has learned to look past what covers them. `benchmarks/clip_cleaning` says what it does to these victims and to others.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from firmground.bounds import FROM_0, FROM_1, SHARE, SHARE_ABOVE_0, check_bounds
from firmground.defenses.cleaning.cleaned import Cleaned, cleaned_by
from firmground.defenses.cleaning.coverings import check_families, cover
from firmground.defenses.cleaning.inducers import (
    Inducers,
    boxes,
    edges,
    faint,
    searched,
    strongest_warps,
    strongest_waves,
)
from firmground.defenses.cleaning.remembered import images_of, texts_of
from firmground.defenses.cleaning.towers import ImageTower, TextTower
from firmground.errors import DataError
from firmground.models.contrastive import check_captions, finished, gathered, info_nce, one_way, share
from firmground.models.training import Fitted, Training, check_batch, fit
from firmground.types import Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from firmground.data.pairs import PairBatch, PairSet
    from firmground.models.dual import DualEncoder
    from firmground.models.training import Objective
    from firmground.types import Embeddings, Images

FEWEST, SEARCHED = 2, 64  # images that inducers are searched on
LAST = 0.5  # of the found coverings, what comes from the last search at least


@dataclass(frozen=True, kw_only=True)
class Disarm(Training):
    """Fine-tunes the image tower to embed covered images as the suspect embeds them bare, then the texts to fit.

    The epochs are shared out among `rounds`, each with a search and a schedule of its own; `text_epochs` come after
    them, with theirs. `found` is the share of coverings that the searches found, of which half are from the last. In
    each search `restarts` patterns of each kind are looked for: faint ones of `opacity`, patches of `size`, boxes as
    `spread` makes them opaque, waves of `amplitude` with at most `cycles` cycles, and warps by at most `reach` of the
    sides (see `inducers`).
    """

    step_size: float = 1e-5
    kept_weight: float = 10.0
    covered_weight: float = 10.0
    caption_weight: float = 3.0
    rounds: int = 3
    found: float = 0.5
    opacity: float = 0.2
    size: float = 0.25
    spread: float = 0.32
    amplitude: float = 0.25
    cycles: int = 10
    reach: float = 0.06
    restarts: int = 4
    search_steps: int = 30
    text_epochs: int = 8
    without: tuple[str, ...] = ()  # families of generic coverings that are left out

    name: ClassVar[str] = "disarm"
    paper: ClassVar[str] = "Ours, from Neural Cleanse (S&P 2019), I-BAU (ICLR 2022) and NAD (ICLR 2021)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_families(self.without)
        shares = dict.fromkeys(("opacity", "size", "spread", "amplitude", "reach"), SHARE_ABOVE_0)
        counts = dict.fromkeys(("rounds", "restarts", "cycles", "search_steps"), FROM_1)
        check_bounds(self, found=SHARE, text_epochs=FROM_0, **shares, **counts)

    def clean(
        self,
        encoder: DualEncoder,
        pairs: PairSet,
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
        resume: Path | None = None,
    ) -> Cleaned:
        """Returns a cleaned copy. Raises as `CleanCLIP.clean`."""
        check_batch(self, pairs)
        check_captions(pairs)
        begun = time.perf_counter()
        copied = encoder.cast(torch.float32)
        whole = (self.epochs + self.text_epochs) * (len(pairs) // self.batch_size)
        searches: list[Inducers] = []
        fitted = Fitted(steps=0, losses={})

        def taught(number: int, method: Disarm, tower: torch.nn.Module, loss: Objective) -> Fitted:
            done = fit(
                tower, pairs, method, loss,
                rng=rng, watch=_from(watch, fitted.steps, whole), stage=self.name,
                resume=None if resume is None else resume / f"round-{number}",
                run={"stage": self.name, "pairs": len(pairs), "round": number},
            )  # fmt: skip
            return Fitted(steps=fitted.steps + done.steps, losses=fitted.losses | done.losses)

        rounds = self._by_round()
        known = images_of(encoder, pairs, self.batch_size), texts_of(encoder, pairs.captions, self.batch_size)
        for number, method in enumerate(rounds, start=1):
            searches.append(self._search(copied, pairs, rng, watch))
            fitted = taught(number, method, ImageTower(copied), self._loss(*known, encoder.logit_scale, searches))
        if self.text_epochs:
            method, seen = replace(self, epochs=self.text_epochs), images_of(copied, pairs, self.batch_size)
            fitted = taught(len(rounds) + 1, method, TextTower(copied), self._text_loss(copied, seen, searches))
        return cleaned_by(self, finished(copied, encoder, fitted), encoder, time.perf_counter() - begun)

    def _by_round(self) -> list[Disarm]:
        """This method with the epochs of each round: the last gets twice as many as the others, and what is left."""
        rounds = min(self.rounds, self.epochs)
        each = max(1, self.epochs // (rounds + 1))
        last = self.epochs - each * (rounds - 1)
        return [replace(self, epochs=epochs) for epochs in [each] * (rounds - 1) + [last]]

    def _search(self, encoder: DualEncoder, pairs: PairSet, rng: torch.Generator, watch: Watch) -> Inducers:
        """What gathers images of the first batch that `rng` draws, by the encoder as it now is."""
        encoder.model.eval()
        images = next(iter(pairs.batches(min(SEARCHED, len(pairs)), rng))).images.to(encoder.device).float()
        if len(images) < FEWEST:
            raise DataError(f"expected at least {FEWEST} images that can be read, got {len(images)}")
        side = encoder.image_size
        if images.shape[-2:] != (side, side):
            images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True).clamp(0, 1)
        shapes = [(self.size, self.size)] * self.restarts + edges(self.restarts, rng)
        masks = torch.cat([faint(side, self.opacity, self.restarts), boxes(side, shapes, self.spread, rng)])
        patterns = searched(encoder, images, masks, steps=self.search_steps, rng=rng, watch=watch)
        waves = strongest_waves(encoder, images, amplitude=self.amplitude, cycles=self.cycles, count=self.restarts)
        warps = strongest_warps(
            encoder, images, reach=self.reach, count=self.restarts, steps=self.search_steps, rng=rng, watch=watch
        )
        return patterns.joined(waves).joined(warps)

    def _loss(
        self, known: Embeddings, texts: Embeddings, scale: torch.Tensor, searches: Sequence[Inducers]
    ) -> Objective:
        """The three terms, where the suspect has the set's images at `known` and its captions at `texts`."""
        covering = self._covering(searches)

        def loss(tower: Any, batch: PairBatch, draws: torch.Generator) -> dict[str, torch.Tensor]:
            own, world = share(len(batch))
            bare, under = tower(torch.cat([batch.images[own], covering(batch.images, draws)[own]])).chunk(2)
            before = known[list(batch.rows[own])].to(bare)
            right = torch.arange(len(batch), device=bare.device)[own]
            captions = F.cross_entropy(scale.float() * bare @ texts[list(batch.rows)].to(bare).T, right)
            return {
                "kept": self.kept_weight * away(bare, before) / world,
                "covered": self.covered_weight * away(under, before) / world,
                "captions": self.caption_weight * captions / world,
            }

        return loss

    def _text_loss(self, copied: DualEncoder, seen: Embeddings, searches: Sequence[Inducers]) -> Objective:
        """InfoNCE of texts with clean images, which the image tower has at `seen`, and of covered images with texts."""
        covering = self._covering(searches)

        def loss(tower: Any, batch: PairBatch, draws: torch.Generator) -> dict[str, torch.Tensor]:
            own, _ = share(len(batch))
            covered = covering(batch.images, draws)[own].to(copied.device)
            with torch.no_grad():
                under = gathered(copied.embed_images(covered).float())
            tokens, scale = copied.tokenize(batch.captions[own]), copied.logit_scale.float()
            texts = gathered(tower(tokens.ids, tokens.mask))
            bare = gathered(seen[list(batch.rows[own])].to(texts))
            return {"texts": info_nce(bare, texts, scale), "covered images": one_way(under, texts, scale)}

        return loss

    def _covering(self, searches: Sequence[Inducers]) -> Callable[[Images, torch.Generator], Images]:
        """Gives copies of images, (batch, 3, height, width): the first of them under inducers, the rest generic."""
        inducers, fresh = reduce(Inducers.joined, searches), len(searches[-1])

        def covering(images: Images, rng: torch.Generator) -> Images:
            count = round(self.found * len(images))
            which = torch.randint(len(inducers), (count,), generator=rng)
            last = len(inducers) - fresh + torch.randint(fresh, (count,), generator=rng)
            which = torch.where(torch.rand(count, generator=rng) < LAST, last, which)
            generic = cover(images[count:], rng=rng, without=self.without) if count < len(images) else images[:0]
            return torch.cat([inducers.over(images[:count], which, rng), generic.to(images)])

        return covering


def away(now: Embeddings, before: Embeddings) -> torch.Tensor:
    """One less the mean cosine of unit embeddings, (batch, width) each."""
    return 1 - (now * before.to(now.device)).sum(dim=1).mean()


def _from(watch: Watch, done: int, whole: int) -> Watch:
    """Counts the steps of a round on from those that are done."""

    def told(step: int, total: int, stage: str, **scalars: float) -> None:
        watch(done + step, whole, stage, **scalars)

    return told
