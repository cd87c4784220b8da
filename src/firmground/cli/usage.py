"""Options that do not go together, refused in a sentence before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmground.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def leave(use: str, subject: str, /, **options: object) -> None:
    """Raises `UsageError` where an option that is for another `use` than `subject` is given."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"--{name} is for {use}, which {subject} is not")


def one_of(triggers: Sequence[str]) -> str | None:
    """The one trigger on images, if there is one. Raises `UsageError` for more."""
    if len(triggers) > 1:
        raise UsageError(f"images take one trigger at a time, got {len(triggers)}; pass one --trigger")
    return triggers[0] if triggers else None


def check_aim(*, manifest: str | None, trigger: str | None, target: str | None, settings: Sequence[str]) -> None:
    """Raises `UsageError` where a trigger is named twice, or something is said of one that is not named."""
    if manifest is not None and (trigger is not None or target is not None or settings):
        raise UsageError("--manifest names trigger and target; leave --trigger, --target and --set out")
    if manifest is None and trigger is None and (target is not None or settings):
        raise UsageError("--target and --set say more about a trigger; name it with --trigger, or pass --manifest")
