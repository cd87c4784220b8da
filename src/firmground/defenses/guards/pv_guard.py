"""Watches a tuned model's outputs for predefined vectors (PVs), and its inputs for the triggers that lead to them.

Wei et al., "LMSanitator: Defending Prompt-Tuning Against Task-Agnostic Backdoors", NDSS 2024, section V-C: an input is
flagged where its output agrees with a PV in the sign of more than 0.8 of the coordinates (`match="sign"`).

Departs from the paper: the PVs are measured anew under the prompt, which shifts them, by running the recovered
triggers in clean texts; outputs are compared by distance in units of the clean spread (`matching.py`); the threshold
comes from clean texts; triggers are also looked up in the token ids, so that one that does not reach its PV is
removed all the same; and the clean false-flag rate is measured and reported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from firmground.defenses.guards.calibration import Outputs, run, separable, stamp, threshold_between
from firmground.defenses.guards.fitted import FittedGuard
from firmground.defenses.guards.identity import identify
from firmground.defenses.guards.lookup import Watched, watched
from firmground.defenses.guards.matching import Match, Matcher, build
from firmground.defenses.guards.pipeline import GuardedPipeline
from firmground.defenses.guards.reading import task_of
from firmground.errors import DataError
from firmground.intervals import wilson
from firmground.prompts.heads import Task
from firmground.prompts.tuned import Tuned
from firmground.types import Evidence, Interval, Readout, Watch, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

FEWEST = 32  # clean texts
SIGN_THRESHOLD = 0.8  # LMSanitator's
HEAD_READS = {Task.TEXTS: (Readout.CLS, Readout.MEAN), Task.WORDS: (Readout.TOKEN,)}


@dataclass(frozen=True, kw_only=True)
class PVGuard:
    """A guard from a scan's evidence and clean texts; it never sees an attack.

    `samples` clean texts carry each recovered trigger to measure its PV. A PV is watched where at least the share
    `power` of them lies past `clearance` of the way from the nearest clean text to it: a head that reads tokens sees
    little of a trigger that acts at [CLS], and what hardly stands out would flag clean texts. The threshold lies
    `margin` of the way from the clean scores' `quantile` to the triggered ones. Triggers are also looked up in the
    token ids, save those that occur in the clean texts and leave most of these unflagged.
    """

    name: ClassVar[str] = "pv-guard"
    paper: ClassVar[str] = "LMSanitator (NDSS 2024)"

    match: Match = "distance"
    samples: int = 24
    power: float = 0.8
    clearance: float = 0.5
    quantile: float = 0.995
    margin: float = 0.5
    batch_size: int = 32

    def fit(
        self,
        tuned: Tuned | Any,
        evidence: Evidence,
        texts: Sequence[str],
        *,
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> FittedGuard:
        """Fits to a `Tuned` prompt or a Hugging Face pipeline, with at least 32 clean texts (a few hundred are better).

        Half of the texts calibrate, the other half measures the false-flag rate. Without triggers or PVs in the
        evidence the guard watches nothing and says so in its `doubts`.
        """
        if len(texts) < FEWEST:
            raise DataError(f"a guard needs at least {FEWEST} clean texts to calibrate on, got {len(texts)}; give more")
        return _Fit(self, tuned, evidence, list(texts), rng, watch).guard()


class _Fit:
    def __init__(
        self, method: PVGuard, tuned: Any, evidence: Evidence, texts: list[str], rng: torch.Generator, watch: Watch
    ) -> None:
        self.method, self.tuned, self.evidence, self.rng, self.watch = method, tuned, evidence, rng, watch
        self.pipeline = tuned.pipeline() if isinstance(tuned, Tuned) else tuned
        self.task = task_of(self.pipeline)
        self.identity = identify(self.pipeline, tuned.base_sha256 if isinstance(tuned, Tuned) else None)
        order = torch.randperm(len(texts), generator=rng).tolist()
        self.texts = [texts[i] for i in order]
        distinct = {trigger.text: trigger for trigger in evidence.triggers}
        self.triggers = [watched(self.pipeline.tokenizer, t.text, t.token_ids) for t in distinct.values()]

    def guard(self) -> FittedGuard:
        """The guard, its false-flag rate measured on the texts that did not calibrate it."""
        clean = self._run(self.texts, "reading clean texts")
        half = len(clean) // 2
        known, checked = clean.select(range(half)), clean.select(range(half, len(clean)))
        vectors, triggered = self._vectors()
        matcher, effective, threshold = self._calibrate(known.untouched(), vectors, triggered)
        count = len(self.triggers)
        kept = [t for t in self.triggers if self._worth_a_lookup(t, known, matcher, threshold)]
        guard = FittedGuard(
            task=self.task,
            matcher=matcher,
            threshold=threshold,
            triggers=tuple(kept),
            false_flags=wilson(0, len(checked)),
            identity=self.identity,
            doubts=self._doubts(count, effective),
            settings=asdict(self.method),
            measurements={"triggers": float(count), "effective": float(effective[:count].sum())},
        )
        return replace(guard, false_flags=self._false_flags(guard, checked, self.texts[half:]))

    def _run(self, texts: Sequence[str], stage: str) -> Outputs:
        return run(
            self.pipeline, texts, self.triggers, batch_size=self.method.batch_size,
            told=lambda done: self.watch(done, len(texts), stage),
        )  # fmt: skip

    def _vectors(self) -> tuple[torch.Tensor, list[Outputs]]:
        """The PV of every trigger, and those that the evidence has without a trigger: (count, width)."""
        bases = self.texts[: self.method.samples]
        stamped = [stamp(text, trigger.text, self.rng) for trigger in self.triggers for text in bases]
        outputs = self._run(stamped, "reading triggered texts") if stamped else Outputs(states=(), hits=())
        step = len(bases)
        groups = [outputs.select(range(i, i + step)) for i in range(0, len(stamped), step)]
        means = [group.together().mean(0) for group in groups]
        led_to = {trigger.vector for trigger in self.evidence.triggers}
        alone = [
            torch.tensor(vector.values)
            for i, vector in enumerate(self.evidence.vectors)
            if i not in led_to and vector.readout in HEAD_READS[self.task]
        ]
        groups += [Outputs(states=(vector[None],), hits=(False,)) for vector in alone]
        width = self.pipeline.model.config.hidden_size
        return torch.stack([*means, *alone]) if groups else torch.empty(0, width), groups

    def _calibrate(
        self, clean: Outputs, vectors: torch.Tensor, triggered: Sequence[Outputs]
    ) -> tuple[Matcher, torch.Tensor, float]:
        """The matcher with the PVs that stand out, which of all those are, and the threshold."""
        if len(clean) < FEWEST // 4:
            raise DataError(f"only {len(clean)} of the clean texts are without a recovered trigger; give more texts")
        quarter = len(clean) // 2
        matcher = build(self.method.match, clean.select(range(quarter)).together(), vectors)
        held_out = clean.select(range(quarter, len(clean)))
        if not len(vectors):
            return matcher, torch.zeros(0, dtype=torch.bool), 1.0
        apart = [group.scores(matcher)[:, k] for k, group in enumerate(triggered)]
        effective = separable(held_out.scores(matcher), apart, power=self.method.power, clearance=self.method.clearance)
        matcher = matcher.keep(effective)
        if not effective.any():
            return matcher, effective, 1.0
        if self.method.match == "sign":
            return matcher, effective, SIGN_THRESHOLD
        reached = torch.cat([own for own, works in zip(apart, effective.tolist(), strict=True) if works])
        threshold = threshold_between(
            held_out.scores(matcher).amax(1), reached, quantile=self.method.quantile, margin=self.method.margin
        )
        return matcher, effective, threshold

    def _worth_a_lookup(self, trigger: Watched, clean: Outputs, matcher: Matcher, threshold: float) -> bool:
        """Not where it occurs in clean texts and mostly does nothing there: it would only raise false flags."""
        rows = [i for i in range(len(clean)) if self._occurs(trigger, [self.texts[i]])]
        if not rows:
            return True
        if not len(matcher.vectors):
            return False
        return bool((clean.select(rows).scores(matcher).amax(1) > threshold).float().mean() >= 0.5)

    def _occurs(self, trigger: Watched, texts: Sequence[str]) -> bool:
        rows = self.pipeline.tokenizer(list(texts), add_special_tokens=False).input_ids
        wanted = trigger.rows
        return any(
            tuple(row[i : i + len(ids)]) == ids
            for row in rows
            for ids in wanted
            for i in range(len(row) - len(ids) + 1)
        )

    def _false_flags(self, guard: FittedGuard, clean: Outputs, texts: Sequence[str]) -> Interval:
        """How many of the texts are flagged in the end; only those that raise a flag at first are run again."""
        scores = clean.scores(guard.matcher).amax(1) if len(guard.matcher.vectors) else torch.full((len(clean),), -1.0)
        looked_up = [any(self._occurs(trigger, [text]) for trigger in guard.triggers) for text in texts]
        first = [
            text
            for text, score, hit in zip(texts, scores.tolist(), looked_up, strict=True)
            if score > guard.threshold or hit
        ]
        results = GuardedPipeline(self.tuned, guard)(first, batch_size=self.method.batch_size)
        flags = [result["guard"] if isinstance(result, dict) else result.guard for result in results]
        return wilson(sum(flag["flagged"] for flag in flags), len(texts))

    def _doubts(self, count: int, effective: torch.Tensor) -> tuple[str, ...]:
        if not len(effective):
            return ("the evidence holds no trigger and no vector that the head reads: there is nothing to watch for",)
        if not effective[:count].all():
            lost = [t.text for t, works in zip(self.triggers, effective.tolist(), strict=False) if not works]
            return (f"under this prompt no vector stands out for: {', '.join(lost)}; these can only be looked up",)
        return ()
