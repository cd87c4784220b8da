"""What a guard command was asked, and what it has to tell: the same for guards of texts, of images, of classifiers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from firmground.cli.options import table
from firmground.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class GuardOptions:
    """All that the commands `guard fit`, `guard apply` and `guard evaluate` take, in plain JSON types."""

    encoder: str | None = None
    revision: str | None = None
    adapter: str | None = None
    scan: str | None = None
    texts: str | None = None
    images: str | None = None
    data: str | None = None
    root: str | None = None
    classes: str | None = None
    templates: str | None = None
    method: str | None = None
    settings: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    target: str | None = None
    manifest: str | None = None
    seed: int = 0
    device: str = "auto"

    def check(self, what: str, *, needs: Sequence[str], leave: Sequence[str]) -> None:
        """Raises `UsageError` where an option that `what` needs is missing, or one that it has no use for is given."""
        if any(getattr(self, name) is None for name in needs) or any(getattr(self, name) for name in leave):
            none = f", and no {' or '.join(f'--{name}' for name in leave)}" if leave else ""
            raise UsageError(f"{what} needs {' and '.join(f'--{name}' for name in needs)}{none}")


@dataclass(frozen=True, kw_only=True)
class Told:
    """What came out: a table, lines under it, and the object that `--json` prints."""

    plain: dict[str, Any]
    columns: tuple[str, ...] = ()
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()

    def show(self, *, as_json: bool) -> None:
        """The table and the lines on stderr, the object on stdout."""
        if self.columns:
            table("", self.columns, self.rows)
        for line in self.lines:
            typer.echo(line, err=True)
        if as_json:
            typer.echo(json.dumps(self.plain, indent=2))
