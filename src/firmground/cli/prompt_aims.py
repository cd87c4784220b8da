"""Which trigger and which target a prompt is measured with: named, of a manifest, or of the prompt's own mark."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmground.attacks.poisoning.manifests import rebuilt_trigger
from firmground.attacks.prompts import PlacedTrigger
from firmground.cli.poisoning import build_trigger
from firmground.cli.usage import check_aim
from firmground.data.tables import read_utf8
from firmground.errors import DataError, UsageError
from firmground.prompts.visual_files import is_visual_prompt, load_prompt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, kw_only=True, eq=False)
class Aim:
    """A placed trigger and the label that it is for; `told` is both in plain JSON."""

    placed: PlacedTrigger
    target: str
    told: dict[str, Any]


def aim_of(
    label_names: Sequence[str],
    planted: Mapping[str, Any] | None,
    *,
    trigger: str | None,
    settings: tuple[str, ...],
    target: str | None,
    manifest: str | None,
) -> Aim | None:
    """The aim of an attack; that of a prompt's own mark, `planted`, where none is named, None where it has none.

    Raises `UsageError` for a trigger without a target or both a trigger and a manifest, `DataError` for a target that
    is no label.
    """
    check_aim(manifest=manifest, trigger=trigger, target=target, settings=settings)
    if manifest is not None:
        found: Aim | None = read_aim(manifest)
    elif trigger is not None:
        if target is None:
            raise UsageError("say with --target which label the trigger is for")
        placed = PlacedTrigger(trigger=build_trigger(trigger, settings))
        found = Aim(placed=placed, target=target, told={"trigger": {"method": trigger}, "target": target})
    else:
        found = None if planted is None else marked(planted, "the prompt")
    if found is not None and found.target not in label_names:
        raise DataError(f"the target '{found.target}' is none of the labels: {', '.join(label_names)}")
    return found


def read_aim(path: str) -> Aim:
    """The aim of a planted prompt, or of what 'firmground implant --json' printed of one. Raises `DataError`."""
    if is_visual_prompt(path):
        planted = load_prompt(path).planted
        if planted is None:
            raise DataError(f"{path} is not marked as planted; pass the prompt that 'firmground implant' wrote")
        return marked(planted, path)
    try:
        told = json.loads(read_utf8(Path(path)))
        planted = told["planted"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is neither a planted prompt nor what 'firmground implant --json' printed of one "
                        f"({error})") from error  # fmt: skip
    return marked(planted, path)


def marked(planted: Mapping[str, Any], where: str) -> Aim:
    """The aim that a mark tells. Raises `DataError` where it makes no sense."""
    try:
        distance = int(planted.get("distance", 0))
        placed = PlacedTrigger(trigger=rebuilt_trigger(planted["trigger"]), distance=distance)
        told = {"trigger": dict(planted["trigger"]), "distance": distance, "target": str(planted["target"])}
        return Aim(placed=placed, target=str(planted["target"]), told=told)
    except (ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise DataError(f"what {where} says of its trigger cannot be read ({error}); name it with --trigger") from error
