"""What `firmground evaluate` does with each kind: a victim, a visual prompt, a dual encoder, a tuned prompt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from firmground.cli.options import labelled, pick_device, table
from firmground.cli.progress import progress
from firmground.cli.usage import one_of
from firmground.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.cli.dual_evaluation import DualRates
    from firmground.cli.dual_measuring import DualTask
    from firmground.cli.prompt_evaluation import PromptRates

SPELT = {"triggers": "trigger", "settings": "set"}  # options that are not called as their fields are


@dataclass(frozen=True, kw_only=True)
class Asked:
    """All that the command takes, in plain JSON types; `subject` is what is measured, or the task of a victim."""

    subject: str
    revision: str | None
    adapter: str | None
    model: str | None
    control: str | None
    victim: str | None
    images: str | None
    attacked: str | None
    report: str | None
    record: str | None
    data: str | None
    root: str | None
    classes: str | None
    templates: str | None
    train: str | None
    task: DualTask | None
    triggers: tuple[str, ...]
    settings: tuple[str, ...]
    target: str | None
    manifest: str | None
    seed: int
    device: str

    def leave(self, *names: str, because: str) -> None:
        """Raises `UsageError` where one of these options is given."""
        for name in names:
            if getattr(self, name):
                raise UsageError(f"--{SPELT.get(name, name)} {because}")


def evaluate_asked(asked: Asked, *, as_json: bool) -> None:
    """Measures and tells. Raises `UsageError` where options do not go together."""
    if asked.victim is not None:
        evaluate_a_victim(asked, asked.victim, as_json=as_json)
        return
    asked.leave("images", "attacked", "report", "record", because="is for victims; name one with --victim")
    if asked.data is None:
        raise UsageError(f"{asked.subject} is measured on data; pass it with --data")
    if Path(asked.subject).is_file():
        evaluate_a_visual_prompt(asked, asked.data, as_json=as_json)
        return
    asked.leave("model", "control", because=f"is for visual prompts, which are files; {asked.subject} is none")
    from firmground.cli.subjects import needs_dual

    if needs_dual(asked.subject, asked.revision):
        evaluate_a_dual_encoder(asked, asked.data, as_json=as_json)
    else:
        evaluate_a_tuned_prompt(asked, asked.data, as_json=as_json)


def evaluate_a_victim(asked: Asked, victim: str, *, as_json: bool) -> None:
    """On annotated images, and on attacked ones."""
    if asked.images is None:
        raise UsageError("a victim is measured on annotated images; pass their folder with --images")
    if asked.data is not None:
        raise UsageError("a victim takes --images, a folder with annotations.json, in place of --data")
    others = ("adapter", "model", "control", "root", "classes", "templates", "train", "task", "triggers", "settings")
    asked.leave(*others, "target", "manifest", because="is not for victims")
    from firmground.cli.victim_evaluation import VictimEvaluation, evaluate_and_tell

    options = VictimEvaluation(
        task=asked.subject,
        victim=victim,
        images=asked.images,
        attacked=asked.attacked,
        revision=asked.revision,
        seed=asked.seed,
        device=asked.device,
    )
    report, record = (None if place is None else Path(place) for place in (asked.report, asked.record))
    evaluate_and_tell(options, report, record, as_json=as_json)


def evaluate_a_visual_prompt(asked: Asked, data: str, *, as_json: bool) -> None:
    """On labelled images, and with a trigger on them."""
    asked.leave("adapter", "task", "train", because=f"is not for a visual prompt, which {asked.subject} is")
    from firmground.cli.prompt_evaluation import PromptEvaluation, evaluate_prompt
    from firmground.cli.prompt_measuring import RATES

    options = PromptEvaluation(
        prompt=asked.subject,
        model=asked.model,
        data=data,
        root=asked.root,
        revision=asked.revision,
        classes=asked.classes,
        templates=asked.templates,
        trigger=one_of(asked.triggers),
        settings=asked.settings,
        target=asked.target,
        manifest=asked.manifest,
        control=asked.control,
        seed=asked.seed,
        device=asked.device,
    )
    with progress() as watch:
        told = evaluate_prompt(options, watch)
    show(told, RATES.__getitem__, as_json=as_json)


def evaluate_a_dual_encoder(asked: Asked, data: str, *, as_json: bool) -> None:
    """On pairs or classes, and with a trigger on the images."""
    asked.leave("adapter", because=f"is not for a dual encoder, which {asked.subject} is")
    from firmground.cli.dual_evaluation import DualEvaluation, evaluate_dual
    from firmground.cli.dual_measuring import title

    options = DualEvaluation(
        source=asked.subject,
        revision=asked.revision,
        data=data,
        root=asked.root,
        task=asked.task,
        trigger=one_of(asked.triggers),
        settings=asked.settings,
        target=asked.target,
        manifest=asked.manifest,
        classes=asked.classes,
        templates=asked.templates,
        train=asked.train,
        seed=asked.seed,
        device=asked.device,
    )
    with progress() as watch:
        told = evaluate_dual(options, watch)
    show(told, title, as_json=as_json)


def show(told: PromptRates | DualRates, title: Callable[[str], str], *, as_json: bool) -> None:
    """The rates with their 95 % confidence intervals."""
    rows = [(title(name), interval.percent, str(interval.count)) for name, interval in told.rates.items()]
    table(told.heading, ("", "rate (95 % interval)", "n"), rows)
    for line in told.left_out:
        typer.echo(line, err=True)
    if as_json:
        typer.echo(json.dumps(told.plain(), indent=2))


def evaluate_a_tuned_prompt(asked: Asked, data: str, *, as_json: bool) -> None:
    """On labelled texts, and with each trigger in them."""
    encoder = asked.subject
    others = ("target", "manifest", "task", "train", "classes", "templates", "root", "settings")
    asked.leave(*others, because=f"is for dual encoders, which {encoder} is not")
    if asked.adapter is None:
        raise UsageError(
            f"a language encoder is measured with a tuned prompt; pass the one on {encoder} with --adapter"
        )
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.measuring import TITLES, aligned, measure, plain, rates
        from firmground.prompts.tuned import load_tuned

        rows = labelled(Path(data))
        tuned = load_tuned(encoder, asked.adapter, revision=asked.revision)
        tuned.model.to(pick_device(asked.device))
        watch(0, 1, "evaluating")
        result = measure(tuned.pipeline(), aligned(rows, tuned.label_names), asked.triggers, seed=asked.seed)
    found = [(TITLES[name], interval.percent, str(interval.count)) for name, interval in rates(result).items()]
    table("", ("", "rate (95 % interval)", "n"), found)
    if as_json:
        typer.echo(json.dumps({"schema": "firmground/evaluation/1", "results": plain(result)}, indent=2))
