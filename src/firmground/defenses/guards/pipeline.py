"""A Hugging Face pipeline with a guard: same call, same results, and what the guard has to say."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from firmground.defenses.guards.identity import check_same, identify
from firmground.defenses.guards.lookup import grams_of
from firmground.defenses.guards.purging import Fields, Judged, Purged, purge
from firmground.defenses.guards.reading import Seen, task_of, watching
from firmground.defenses.guards.words import Gram, cut
from firmground.errors import AdapterError, DataError
from firmground.prompts.heads import Task
from firmground.prompts.tuned import Tuned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from firmground.defenses.guards.fitted import FittedGuard

PURGE_BATCH = 32


class GuardedList(list[Any]):
    """The result of one input where the pipeline gives a list: that list, with the guard's flags in `guard`."""

    guard: dict[str, Any]


class GuardedPipeline:
    """Wraps a pipeline for text or token classification (or a `Tuned`), and is called as the pipeline is.

    Every result dictionary has one key more, `guard`: `flagged`, `score` (higher is more suspicious), `removed` (the
    words that were deleted before the prediction) and `resolved` (False where no deletion cleared the flag). A result
    that is a list, as for token classification, has it as an attribute too. Clean inputs cost no second forward pass
    and their results are the pipeline's own. Purged words have no entity; `start` and `end` refer to the text as it
    came. A generator or a data set is read in batches as results are asked for.

    Raises `AdapterError` where the guard was fitted on another encoder or under another prompt.
    """

    def __init__(self, pipeline: Any, guard: FittedGuard) -> None:
        base_sha256 = pipeline.base_sha256 if isinstance(pipeline, Tuned) else None
        self.pipeline = pipeline.pipeline() if isinstance(pipeline, Tuned) else pipeline
        self.guard = guard
        if task_of(self.pipeline) is not guard.task:
            raise AdapterError(f"the guard was fitted for {guard.task}, but the pipeline does {self.pipeline.task}")
        check_same(guard.identity, identify(self.pipeline, base_sha256))
        self._matcher = guard.matcher.to(self.pipeline.model.device)

    @property
    def model(self) -> Any:
        return self.pipeline.model

    @property
    def tokenizer(self) -> Any:
        return self.pipeline.tokenizer

    @property
    def task(self) -> str:
        return str(self.pipeline.task)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """The pipeline's results for one input, a list, or (as an iterator) a generator or data set."""
        if isinstance(inputs, str | dict):
            result = self._guarded([inputs], options)[0]
            wrapped = self.guard.task is Task.TEXTS and isinstance(inputs, str) and "top_k" not in options
            return [result] if wrapped else result
        if isinstance(inputs, list | tuple):
            return self._guarded(list(inputs), options)
        return self._stream(inputs, options)

    def _stream(self, inputs: Iterable[Any], options: dict[str, Any]) -> Iterator[Any]:
        size = max(1, options.get("batch_size") or self.pipeline._batch_size or 1)
        source = iter(inputs)
        while window := list(islice(source, size)):
            yield from self._guarded(window, options)

    def _guarded(self, inputs: list[Any], options: dict[str, Any]) -> list[Any]:
        if not inputs:
            return []
        fields = [_fields(item) for item in inputs]
        judged = self._judge(inputs, options)
        flagged = [i for i, item in enumerate(judged) if item.flagged]
        results = [_with_flags(item.result, _flags(item, None)) for item in judged]
        if flagged:
            for i, purged in zip(flagged, self._purge(inputs, fields, judged, flagged, options), strict=True):
                if purged.confirmed:
                    result = self._to_original(purged, fields[i][0], purged.judged.result)
                    results[i] = _with_flags(result, _flags(judged[i], purged))
                else:
                    results[i] = _with_flags(judged[i].result, _flags(replace(judged[i], flagged=False), None))
        return results

    def _purge(
        self,
        inputs: list[Any],
        fields: list[Fields],
        judged: list[Judged],
        flagged: list[int],
        options: dict[str, Any],
    ) -> list[Purged]:
        paired = isinstance(inputs[flagged[0]], dict)
        names = list(inputs[flagged[0]]) if paired else []

        def again(texts: Sequence[Fields]) -> list[Judged]:
            order = sorted(range(len(texts)), key=lambda i: sum(map(len, texts[i])))
            rows = [dict(zip(names, texts[i], strict=False)) if paired else texts[i][0] for i in order]
            size = max(PURGE_BATCH, options.get("batch_size") or 1)
            found = self._judge(rows, {**options, "batch_size": size})
            back = sorted(range(len(order)), key=order.__getitem__)
            return [found[i] for i in back]

        return purge([fields[i] for i in flagged], [judged[i] for i in flagged], again, self._triggers_in)

    def _triggers_in(self, fields: Fields) -> set[Gram]:
        return set().union(*(grams_of(self.tokenizer, text, self.guard.triggers) for text in fields))

    def _judge(self, inputs: list[Any], options: dict[str, Any]) -> list[Judged]:
        """The pipeline's results for a list with what its forward passes showed."""
        scores: list[torch.Tensor] = []
        found: list[torch.Tensor] = []

        def see(seen: Seen) -> None:
            scores.append(self._matcher.best(seen))
            found.append(self.guard.hits(seen))

        with watching(self.pipeline, see):
            results = self.pipeline(inputs, **options)
        score, hit = torch.cat(scores).cpu(), torch.cat(found).cpu()
        parts = self._parts(inputs, options, len(score))
        return [
            _judged(score[start:end], hit[start:end], self.guard.threshold, result)
            for (start, end), result in zip(parts, results, strict=True)
        ]

    def _parts(self, inputs: list[Any], options: dict[str, Any], rows: int) -> list[tuple[int, int]]:
        """Which rows of the forward passes belong to which input: several where a long text goes in with a stride."""
        counts = [1] * len(inputs)
        if rows != len(inputs):
            settings = self.pipeline._preprocess_params.get("tokenizer_params", {})
            stride = options.get("stride", settings.get("stride", 0))
            whole = self.tokenizer(inputs, truncation=True, return_overflowing_tokens=True, stride=stride)
            owners = list(whole["overflow_to_sample_mapping"])
            counts = [owners.count(i) for i in range(len(inputs))]
        ends = torch.tensor(counts).cumsum(0).tolist()
        return [(end - count, end) for end, count in zip(ends, counts, strict=True)]

    def _to_original(self, purged: Purged, text: str, result: Any) -> Any:
        """Entities of a purged text, at their places in the text as it came."""
        if self.guard.task is Task.TEXTS or not purged.grams:
            return result
        shorter = cut(text, purged.grams)
        starts: dict[int, int] = {}
        if self.tokenizer.is_fast:
            spans = self.tokenizer(text, return_offsets_mapping=True).offset_mapping
            starts = {start: index for index, (start, end) in enumerate(spans) if end > start}
        moved = []
        for entity in result:
            start, end = shorter.original(entity["start"], entity["end"])
            place = {"index": starts.get(start, entity["index"])} if "index" in entity else {}
            moved.append({**entity, "start": start, "end": end, **place})
        return moved


def _fields(item: Any) -> Fields:
    fields = tuple(item.values()) if isinstance(item, dict) else (item,)
    if not fields or not all(isinstance(field, str) for field in fields):
        raise DataError(
            f"a guarded pipeline takes texts, or dictionaries of a text and its text_pair; got {type(item).__name__}"
        )
    return fields


def _judged(score: torch.Tensor, hit: torch.Tensor, threshold: float, result: Any) -> Judged:
    highest, found = float(score.max()), bool(hit.any())
    return Judged(flagged=found or highest > threshold, score=highest, hit=found, result=result)


def _flags(judged: Judged, purged: Purged | None) -> dict[str, Any]:
    removed = sorted({" ".join(gram) for gram in purged.grams}) if purged else []
    resolved = purged is None or purged.resolved
    return {"flagged": judged.flagged, "score": judged.score, "removed": removed, "resolved": resolved}


def _with_flags(result: Any, flags: dict[str, Any]) -> Any:
    if isinstance(result, dict):
        return {**result, "guard": flags}
    listed = GuardedList({**entry, "guard": flags} for entry in result)
    listed.guard = flags
    return listed
