"""The plain forms that `prompt_cost` measures against: a loop that does everything anew, and one label at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from firmground.defenses.scans._patterns import Aim, halves, search_patterns
from firmground.defenses.scans._prompted import Behind
from firmground.prompts.mappings import LabelMapping, by_frequency, votes
from firmground.prompts.prompted import PromptedClassifier
from firmground.prompts.visual import VisualPrompt
from firmground.types import ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.data.labelled_images import LabelledImages
    from firmground.defenses.scans._patterns import Patterns
    from firmground.defenses.scans.prompt_cleanse import PromptCleanse
    from firmground.models.classifiers import ImageClassifier
    from firmground.prompts.visual_prompting import VisualPrompting
    from firmground.types import Images


def learn_plainly(
    how: VisualPrompting, base: ImageClassifier, train: LabelledImages, held: LabelledImages, *, rng: torch.Generator
) -> PromptedClassifier:
    """Learns a padding with an iterated mapping as ILM-VP's code does, epoch by epoch, and judges each epoch."""
    shape, labels = how.shape(base), len(train.label_names)
    raw = torch.zeros(shape.tensor_shape, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=how.step_size)

    def behind(sources: torch.Tensor) -> PromptedClassifier:
        prompt = VisualPrompt(shape=shape, pixels=shape.bounded(raw))
        mapping = LabelMapping(kind="iterated", classes=len(base.class_names), sources=sources)
        return PromptedClassifier(base=base, prompt=prompt, mapping=mapping)

    now = behind(torch.arange(labels))
    for _ in range(how.epochs):
        counts = torch.zeros(len(base.class_names), labels, dtype=torch.int64)
        for rows in _batches(len(train), how.batch_size):
            with torch.no_grad():
                found = now.read(_one_by_one(train, rows, now)).argmax(dim=1)
            counts += votes(found, torch.tensor([train.labels[row] for row in rows]), *counts.shape)
        sources = by_frequency(counts)
        order = torch.randperm(len(train), generator=rng).tolist()
        for numbers in _batches(len(train), how.batch_size):
            drawn = [order[number] for number in numbers]
            now = behind(sources)
            logits = now.logits(_one_by_one(train, drawn, now))
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(logits, torch.tensor([train.labels[row] for row in drawn])))
            optimizer.step()
        now = behind(sources)
        for rows in _batches(len(held), how.batch_size):
            now.predict(_one_by_one(held, rows, now))
    return now


def cleanse_one_by_one(
    how: PromptCleanse, prompted: PromptedClassifier, data: LabelledImages, *, rng: torch.Generator
) -> list[Patterns]:
    """The smallest pattern towards each label, searched in a run of its own."""
    model = Behind(classifiers=(prompted,))
    rows = torch.randperm(len(data), generator=rng)[: how.images].tolist()
    parts = halves(model, prompted.prompt.seat(data.select(rows).batch(0, len(rows))), rng)
    with torch.no_grad():
        known, check = (model.embed_images(part).argmax(dim=1) for part in (parts.search, parts.check))
    found = []
    for label in range(len(data.label_names)):

        def towards(embeddings: torch.Tensor, rows: torch.Tensor, label: int = label) -> Aim:
            goals = torch.full((embeddings.shape[1],), label)
            elsewhere = known[rows] != label
            hit = (embeddings[0].argmax(dim=1) == label) & elsewhere
            reached = hit.sum() / elsewhere.sum().clamp_min(1)
            return Aim(loss=F.cross_entropy(embeddings[0], goals)[None], reached=reached[None])

        pattern = search_patterns(
            model, parts.search, towards,
            sparsity=torch.full((1,), how.sparsity), restarts=1, aim=how.success, steps=how.steps,
            step_size=how.step_size, batch_size=how.batch_size, rng=rng, watch=ignore, stage="one label",
        )  # fmt: skip
        with torch.no_grad():
            pattern.embed(model, parts.check[check != label])
        found.append(pattern)
    return found


def _one_by_one(data: LabelledImages, rows: Sequence[int], prompted: PromptedClassifier) -> Images:
    """A batch put together as a data loader does: every image by itself, resized anew."""
    return torch.cat([prompted.prompt.seat(data.batch(row, 1)) for row in rows])


def _batches(count: int, size: int) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
