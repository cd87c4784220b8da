"""`firmground study` and `firmground table`: grids of cases, resumed as one, and their tables."""

from __future__ import annotations

from typing import Annotated

import typer


def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which study.")],
    out: Annotated[str, typer.Option(metavar="DIR_OR_URL", help="Where the records go: a folder or an fsspec URL.")],
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on this Ray cluster ('auto', 'local' ...).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many of the missing cases.")] = None,
) -> None:
    """Run a study; run again, it does only what is missing."""
    raise NotImplementedError("study")


def table(folder: Annotated[str, typer.Argument(metavar="DIR", help="Where a study's records are.")]) -> None:
    """Make the table and plots of a study."""
    raise NotImplementedError("table")
