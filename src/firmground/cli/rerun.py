"""`firmground rerun`: repeats a recorded run and says whether it comes out the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firmground.cli.options import AsJson, visible
from firmground.cli.progress import progress
from firmground.errors import DataError

if TYPE_CHECKING:
    from firmground.cli.scanning import Scanned
    from firmground.reports.record import Record


def rerun(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="A record, or an HTML report with one in it.")],
    as_json: AsJson = False,
) -> None:
    """Repeat a recorded scan; exits as the scan did if outcomes and (on CPU) scores agree, else 2."""
    from firmground.reports.record import Record

    before = Record.read(record)
    if before.verb != "scan":
        raise DataError(f"{record} records '{before.verb}'; 'firmground rerun' repeats scans")
    check_data(before)
    from firmground.cli.scanning import ScanOptions, run_scan

    with progress() as watch:
        after = run_scan(ScanOptions.of(before.arguments), watch)
    found = compare(before, after)
    for line in found:
        typer.echo(visible(f"differs: {line}"), err=True)
    if not found:
        typer.echo(f"The same again: {after.report.outcome}, all outcomes and scores agree.", err=True)
    if as_json:
        typer.echo(
            json.dumps({"agrees": not found, "differences": found, "scan": after.report.model_dump(mode="json")})
        )
    raise typer.Exit(2 if found else after.record.exit_code)


def check_data(record: Record) -> None:
    """Refuses to compare runs on different data."""
    from firmground.reports.record import file_sha256

    for path, digest in record.data.items():
        if not Path(path).is_file():
            raise DataError(f"the record needs {path}, which is not here; run this where the first run took place")
        if file_sha256(path) != digest:
            raise DataError(f"{path} has changed since the record was made; restore it to repeat the run")


def compare(before: Record, after: Scanned) -> list[str]:
    """Where the two runs disagree, in words; other weights, settings and versions are named as the likely reason."""
    from firmground.reports.record import differences
    from firmground.reports.scan import ScanReport

    on_cpu = before.device == after.record.device == "cpu"
    found = list(
        differences(ScanReport.model_validate(before.results), after.report, tolerance=0.0 if on_cpu else float("inf"))
    )
    old, new = before.target, after.record.target
    if old and new and old.weights_sha256 != new.weights_sha256:
        found.append("the weights are not those that were scanned then")
    for name in sorted(before.methods.keys() & after.record.methods.keys()):
        if before.methods[name] != after.record.methods[name]:
            found.append(f"{name} ran with other settings: {before.methods[name]}, now {after.record.methods[name]}")
    changed = [
        f"{name} {version} then, {after.record.versions.get(name)} now"
        for name, version in before.versions.items()
        if after.record.versions.get(name) != version
    ]
    if found and changed:
        found.append(f"likely because of other versions: {'; '.join(changed)}")
    return found
