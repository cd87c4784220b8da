"""`firmground study` and `firmground table`: grids of cases, resumed as one, and their tables."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from firmground.cli.options import AsJson, visible
from firmground.cli.progress import progress

STUDY_EXAMPLE = (
    "Example: firmground study transfer --out records/transfer --workers 2. Killed at any point, it loses at most the "
    "case in flight; give the same command again. Then: firmground table records/transfer"
)
TABLE_EXAMPLE = "Example: firmground table records/transfer --into benchmarks/transfer"


def study(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Which study, such as language-scan; a name that is none lists all.")
    ],
    out: Annotated[str, typer.Option(metavar="DIR_OR_URL", help="Where the records go: a folder or an fsspec URL.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes at a time on this machine.")] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on Ray instead: local, auto, ray://host:port.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="At most so many of the missing cases.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a study; run again, it does only what is missing."""
    with progress() as watch:
        watch(0, 1, "loading the study")
        from firmground.studies import find_study
        from firmground.studies.runner import run

        ran = run(find_study(name), out, workers=workers, ray_address=ray, limit=limit, watch=watch)
    from firmground.data.counting import several

    typer.echo(
        f"{several(ran.done, 'case')} done, {ran.failed} failed, {ran.stood} stood, {ran.missing} missing in {out}.",
        err=True,
    )
    if as_json:
        typer.echo(json.dumps({"schema": "firmground/study-run/1", "study": name, "out": out, **asdict(ran)}))
    raise typer.Exit(2 if ran.failed else 0)


def table(
    place: Annotated[
        str, typer.Argument(metavar="DIR", help="Where a study's records are: a folder or an fsspec URL.")
    ],
    into: Annotated[Path | None, typer.Option(help="Folder for the table and plots; DIR itself if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the Markdown table, the plots and summary.json of a study."""
    from firmground.studies.tables import tabulate

    made = tabulate(place, into=into)
    typer.echo(visible(made.report.markdown), err=True)
    typer.echo(f"Written: {', '.join(str(path) for path in made.files)}", err=True)
    if as_json:
        typer.echo(json.dumps(dict(made.report.summary), indent=2))
