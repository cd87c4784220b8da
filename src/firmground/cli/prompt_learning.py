"""One visual prompt from its options to its record: `prompt fit`, `implant` and `rerun` come through here."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.cli.bases import labelled_images, load_base, prompt_sha256
from firmground.cli.catalogue import method, word
from firmground.cli.options import pick_device
from firmground.cli.prompt_pictures import images_section, shown_prompt, shown_trigger
from firmground.cli.settings import assigned, made
from firmground.cli.unfinished import unfinished
from firmground.data.pair_files import table_of
from firmground.prompts.prompted import LearnedPrompt
from firmground.prompts.visual_files import save_prompt
from firmground.prompts.visual_prompting import VisualPrompting
from firmground.reports import record as records
from firmground.reports.findings import Target
from firmground.reports.html import PicturesSection
from firmground.reports.prompts import FIT, IMPLANT, PromptReport, prompt_page
from firmground.reports.record import Record
from firmground.rng import stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.attacks.prompts import PlacedTrigger
    from firmground.data.labelled_images import LabelledImages
    from firmground.models.classifiers import ImageClassifier
    from firmground.models.dual import DualEncoder
    from firmground.reports.html import Page, Section
    from firmground.types import Interval, Watch

OWN = ("target", "trigger", "learning")  # of an attack: options of their own


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """What was asked for, in plain JSON types; `target`, a label, makes it an attack, with its `trigger` if named."""

    method: str
    source: str
    data: str
    root: str | None = None
    revision: str | None = None
    classes: str | None = None
    templates: str | None = None
    settings: tuple[str, ...] = ()
    target: str | None = None
    trigger: str | None = None
    seed: int = 0
    device: str = "auto"

    @property
    def verb(self) -> str:
        """The command, as records name it."""
        return "prompt-fit" if self.target is None else "implant"

    def files(self) -> dict[str, str]:
        """The data files of the run with their sha256; a folder of images has no hash."""
        return records.hashed(table_of(self.data), self.classes, self.templates)


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptRun:
    """A learned prompt's report and record, and what shows it; its file lies where it was written."""

    report: PromptReport
    record: Record
    sections: tuple[Section, ...]

    def page(self) -> Page:
        """The HTML report."""
        return prompt_page(self.report, self.sections, self.record)


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """A prompt, and for an attack its trigger and success."""

    learned: LearnedPrompt
    placed: PlacedTrigger | None = None
    success: Interval | None = None


def run_prompt(options: PromptOptions, out: Path, watch: Watch) -> PromptRun:
    """Learns what the options name and writes it to `out`, a file, in one piece. Raises `FirmgroundError`."""
    chosen = chosen_method(options)
    device = pick_device(options.device)
    started, since = records.now(), time.perf_counter()
    base = load_base(options.source, revision=options.revision, device=device)
    given = labelled_images(
        options.data,
        image_size=base.image_size,
        watch=watch,
        root=options.root,
        classes=options.classes,
        templates=options.templates,
    )
    run = {"command": options.verb, **asdict(options), "files": options.files()}
    with unfinished(out, run) as checkpoints:
        found = _made(chosen, base, given.data, options, watch, checkpoints)
        learned = found.learned
        assert learned.accuracy is not None  # a validation split measured it
        report = PromptReport(
            schema=FIT if options.target is None else IMPLANT, out=str(out), source=options.source,
            revision=options.revision, base_sha256=learned.base.sha256, data=options.data, method=learned.method,
            settings=learned.settings, seed=options.seed, images=len(given.data), labels=learned.label_names,
            left_out=given.left_out, accuracy=learned.accuracy, success=found.success, planted=learned.planted,
            measurements=learned.measurements, prompt_sha256=prompt_sha256(learned),
            seconds=time.perf_counter() - since,
        )  # fmt: skip
        sections = _sections(found, base, given.data)
        save_prompt(learned, out)
    return PromptRun(report=report, record=_record(options, report, started, str(device)), sections=sections)


def chosen_method(options: PromptOptions) -> Any:
    """The method with its settings. Those without a method's name go to the attack where it has them, else further."""
    if options.target is None:
        kind = method("visual-prompts", options.method)
        return made(kind, assigned([kind], options.settings)[0])
    attack = method("prompt-attacks", options.method)
    kinds: list[type[Any]] = [attack, VisualPrompting]
    if options.trigger is not None:
        kinds.append(method("image-triggers", options.trigger))
    own, learning, *its = assigned(kinds, _addressed(attack, options.settings), kept=OWN)
    extra = {"trigger": made(kinds[2], its[0])} if its else {}
    return made(attack, own | extra | {"target": options.target, "learning": made(VisualPrompting, learning)})


def _addressed(attack: type[Any], settings: Sequence[str]) -> list[str]:
    """The settings, with the attack's name before those of its own: a place is the trigger's, unless it says whose."""
    fields = set(attack.__dataclass_fields__) - set(OWN)
    return [
        f"{word(attack)}.{setting}" if setting.partition("=")[0].strip() in fields else setting for setting in settings
    ]


def _made(
    chosen: Any,
    base: ImageClassifier | DualEncoder,
    data: LabelledImages,
    options: PromptOptions,
    watch: Watch,
    checkpoints: Path,
) -> Made:
    rng = stream(options.seed, options.verb, options.method)
    if options.target is None:
        return Made(learned=chosen.fit(base, data, rng=rng, watch=watch, resume=checkpoints))
    planted = chosen.implant(base, data, rng=rng, watch=watch, resume=checkpoints)
    return Made(learned=planted.learned, placed=planted.trigger, success=planted.success)


def _sections(found: Made, base: ImageClassifier | DualEncoder, data: LabelledImages) -> tuple[Section, ...]:
    prompt = found.learned.prompt
    pictures = [shown_prompt(prompt)] + ([] if found.placed is None else [shown_trigger(found.placed, prompt)])
    heading = "The prompt" if found.placed is None else "The prompt and its trigger"
    return (
        PicturesSection(heading=heading, pictures=tuple(pictures), crisp=True),
        images_section(found.learned.on(base), data, found.placed),
    )


def _record(options: PromptOptions, report: PromptReport, started: str, device: str) -> Record:
    return Record.of_run(
        options.verb,
        options,
        report,
        methods={report.method: report.settings},
        device=device,
        target=Target(source=options.source, revision=options.revision, weights_sha256=report.base_sha256),
        data=options.files(),
        outcome="learned" if options.target is None else "planted",
        exit_code=0,
        started=started,
    )
