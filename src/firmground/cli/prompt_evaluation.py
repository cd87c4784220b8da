"""`firmground evaluate` of a visual prompt, from its options to its rates."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from firmground.cli.bases import labelled_images, prompt_on
from firmground.cli.options import pick_device
from firmground.cli.prompt_aims import aim_of
from firmground.cli.prompt_measuring import measure
from firmground.prompts.visual_files import load_prompt

if TYPE_CHECKING:
    from firmground.types import Interval, Watch


@dataclass(frozen=True, kw_only=True)
class PromptEvaluation:
    """What was asked for, in plain JSON types; `control` is a clean prompt of the same base and labels."""

    prompt: str
    model: str | None
    data: str
    root: str | None = None
    revision: str | None = None
    classes: str | None = None
    templates: str | None = None
    trigger: str | None = None
    settings: tuple[str, ...] = ()
    target: str | None = None
    manifest: str | None = None
    control: str | None = None
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class PromptRates:
    """What was measured: rates by name, the aim of the attack in plain JSON if there is one, and what was left out."""

    rates: dict[str, Interval]
    aim: dict[str, Any] | None
    left_out: tuple[str, ...]

    @property
    def heading(self) -> str:
        """One line over the rates."""
        if self.aim is None:
            return "visual prompt"
        return f"visual prompt, trigger {self.aim['trigger']['method']}, target '{self.aim['target']}'"

    def plain(self) -> dict[str, Any]:
        """The JSON object that `--json` prints."""
        aim = self.aim or {"trigger": None, "target": None}
        return {
            "schema": "firmground/evaluation/1",
            "task": "visual-prompt",
            **aim,
            "results": {name: asdict(interval) for name, interval in self.rates.items()},
            "left_out": list(self.left_out),
        }


def evaluate_prompt(asked: PromptEvaluation, watch: Watch) -> PromptRates:
    """Measures what was asked for. Raises `FirmgroundError`."""
    watch(0, 1, "loading")
    learned = load_prompt(asked.prompt)
    aim = aim_of(
        learned.label_names,
        learned.planted,
        trigger=asked.trigger,
        settings=asked.settings,
        target=asked.target,
        manifest=asked.manifest,
    )
    device = pick_device(asked.device)
    ours = prompt_on(asked.prompt, asked.model, revision=asked.revision, device=device)
    clean = None if asked.control is None else load_prompt(asked.control).on(ours.base)
    given = labelled_images(
        asked.data,
        image_size=learned.base.image_size,
        watch=watch,
        root=asked.root,
        classes=asked.classes,
        templates=asked.templates,
        names=learned.label_names,
    )
    watch(0, 1, "evaluating")
    rates = measure(
        ours.classifier,
        given.data,
        placed=None if aim is None else aim.placed,
        target=None if aim is None else aim.target,
        clean=clean,
        seed=asked.seed,
    )
    return PromptRates(rates=rates, aim=None if aim is None else aim.told, left_out=given.left_out)
