"""`firmground evaluate` of a dual encoder, from its options to its rates."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from firmground.cli.usage import check_aim

if TYPE_CHECKING:
    from firmground.attacks.triggers import ImageTrigger
    from firmground.cli.dual_measuring import DualTask
    from firmground.types import Interval, Watch


@dataclass(frozen=True, kw_only=True)
class DualEvaluation:
    """What was asked for, in plain JSON types."""

    source: str
    data: str
    root: str | None = None
    revision: str | None = None
    task: DualTask | None = None
    trigger: str | None = None
    settings: tuple[str, ...] = ()
    target: str | None = None
    manifest: str | None = None
    classes: str | None = None
    templates: str | None = None
    train: str | None = None
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class DualRates:
    """What was measured: the rates of a task by name, the trigger and target if any, and what was left out."""

    task: DualTask
    rates: dict[str, Interval]
    trigger: dict[str, Any] | None
    target: str | None
    left_out: tuple[str, ...]

    @property
    def heading(self) -> str:
        """One line over the rates."""
        if self.trigger is None:
            return self.task
        return f"{self.task}, trigger {self.trigger['method']}, target '{self.target}'"

    def plain(self) -> dict[str, Any]:
        """The JSON object that `--json` prints."""
        return {
            "schema": "firmground/evaluation/1",
            "task": self.task,
            "trigger": self.trigger,
            "target": self.target,
            "results": {name: asdict(interval) for name, interval in self.rates.items()},
            "left_out": list(self.left_out),
        }


def evaluate_dual(asked: DualEvaluation, watch: Watch) -> DualRates:
    """Measures what was asked for. Raises `FirmgroundError`."""
    from firmground.attacks.poisoning.poisoned import describe
    from firmground.cli.dual_measuring import measure, task_of
    from firmground.cli.held_out import left_out, open_set
    from firmground.cli.options import pick_device
    from firmground.models.dual import DualEncoder

    watch(0, 1, "loading")
    aimed = aim_of(asked)
    encoder = DualEncoder.load(asked.source, revision=asked.revision, device=pick_device(asked.device))
    side, classes, templates = aimed.image_size or encoder.image_size, asked.classes, asked.templates
    opened = open_set(asked.data, image_size=side, root=asked.root, classes=classes, templates=templates)
    train = None
    if asked.train is not None:
        train = open_set(asked.train, image_size=side, classes=classes, templates=templates)
    task = asked.task or task_of(opened)
    watch(0, 1, f"evaluating {task}")
    found = measure(
        encoder, opened, task, seed=asked.seed, trigger=aimed.trigger, target=aimed.target, train=train, watch=watch
    )
    return DualRates(
        task=task,
        rates=found.rates,
        trigger=None if aimed.trigger is None else {"method": type(aimed.trigger).__name__} | describe(aimed.trigger),
        target=found.target,
        left_out=tuple(left_out([one.pairs for one in (opened, train) if one is not None], opened.pairs.counted)),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Aimed:
    """A trigger, the target of its attack, and the side at which images are stamped (None: the encoder's)."""

    trigger: ImageTrigger | None = None
    target: str | None = None
    image_size: int | None = None


def aim_of(asked: DualEvaluation) -> Aimed:
    """The trigger and the target: those of the manifest, or as they were named. Raises `UsageError` where both are."""
    from firmground.attacks.poisoning import read_manifest
    from firmground.cli.poisoning import build_trigger

    check_aim(manifest=asked.manifest, trigger=asked.trigger, target=asked.target, settings=asked.settings)
    if asked.manifest is not None:
        manifest = read_manifest(asked.manifest)
        return Aimed(trigger=manifest.trigger, target=manifest.target, image_size=manifest.image_size)
    if asked.trigger is None:
        return Aimed()
    return Aimed(trigger=build_trigger(asked.trigger, asked.settings), target=asked.target)
