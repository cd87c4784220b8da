"""`firmground scan`: judges an encoder, alone or with a prompt on it, or a visual prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firmground.cli.options import AsJson, Device, FailOn, Model, Revision, Seed, Settings, Texts, path_or_none, table
from firmground.cli.outputs import HtmlReport, RecordFile, check_files, write_files
from firmground.cli.progress import progress

if TYPE_CHECKING:
    from firmground.cli.scanning import Scanned
    from firmground.reports.scan import ScanReport

EXAMPLE = (
    "Example: firmground scan models/clip --images photos --classes names.txt --report report.html. Give images and "
    "names of the kind that the encoder will meet. A visual prompt: firmground scan prompt.safetensors --model resnet "
    "--data photos"
)

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="Directory or hub id of a language or dual encoder, or a visual prompt: a file."
    ),
]
CleanImages = Annotated[
    Path | None,
    typer.Option(
        "--images",
        "--data",
        help="For a dual encoder: clean images, as pairs or a folder of classes; else drawn ones. For a visual "
        "prompt: clean images with its labels.",
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A scan (see 'firmground methods scans', 'dual-scans', 'prompt-scans'); repeat for more.",
    ),
]


def scan(
    source: Source,
    revision: Revision = None,
    adapter: Annotated[Path | None, typer.Option(help="Directory of a PEFT prompt on the encoder.")] = None,
    texts: Texts = None,
    images: CleanImages = None,
    model: Model = None,
    classes: Annotated[
        Path | None, typer.Option(help="For a dual encoder: what images may be taken for, one name a line.")
    ] = None,
    method: Methods = None,
    settings: Settings = None,
    as_json: AsJson = False,
    report: HtmlReport = None,
    sarif: Annotated[Path | None, typer.Option(help="Write SARIF 2.1.0.")] = None,
    record: RecordFile = None,
    fail_on: Annotated[FailOn, typer.Option(help="The severity from which a finding exits 1.")] = FailOn.LOW,
    seed: Seed = 0,
    device: Device = "auto",
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="Stop then, and be inconclusive.")
    ] = None,
) -> None:
    """Judge an encoder or a visual prompt: is it backdoored, by which triggers, to which vectors?"""
    check_files(report, sarif, record)
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli.scanning import ScanOptions, run_scan

        options = ScanOptions(
            source=source,
            revision=revision,
            adapter=path_or_none(adapter),
            texts=path_or_none(texts),
            methods=tuple(method or ()),
            settings=tuple(settings or ()),
            seed=seed,
            device=device,
            time_limit=time_limit,
            fail_on=fail_on.value,
            images=path_or_none(images),
            classes=path_or_none(classes),
            model=model,
        )
        scanned = run_scan(options, watch)
    write(scanned, report=report, sarif=sarif, record=record)
    show(scanned.report)
    if as_json:
        typer.echo(scanned.report.to_json())
    raise typer.Exit(scanned.record.exit_code)


def write(scanned: Scanned, *, report: Path | None, sarif: Path | None, record: Path | None) -> None:
    """Writes the files that were asked for."""
    write_files(scanned, report=report, record=record)
    if sarif is not None:
        from firmground.reports import sarif as logs
        from firmground.reports.writing import write_atomically

        log = logs.sarif(scanned.report, exit_code=scanned.record.exit_code, finished=scanned.record.finished)
        write_atomically(sarif, log + "\n")


def show(scan: ScanReport) -> None:
    """The verdict for a person, on stderr."""
    from firmground.reports.findings import shown
    from firmground.reports.html import took
    from firmground.reports.pages import headline, lead

    colour = {"clean": "green", "backdoored": "red", "inconclusive": "yellow"}[scan.outcome]
    typer.secho(f"\n{headline(scan)}", fg=colour, bold=True, err=True)
    typer.echo(f"{lead(scan)}\n", err=True)
    methods = [
        (
            finding.method,
            finding.outcome.value,
            shown(finding.score),
            shown(finding.threshold),
            took(finding.seconds),
        )
        for finding in scan.findings
    ]
    table("", ("method", "says", "score", "threshold", "time"), methods)
    for finding in scan.findings:
        found = [
            (trigger.text, " ".join(map(str, trigger.token_ids)), trigger.readout.value, shown(trigger.score))
            for trigger in finding.evidence.triggers[:20]
        ]
        if found:
            typer.echo("", err=True)
            table(f"triggers by {finding.method}", ("trigger", "token ids", "read at", "score"), found)
        pictures = [(p.caption, shown(p.score)) for p in finding.evidence.pictures[:20]]
        if pictures:
            typer.echo("", err=True)
            table(f"patterns by {finding.method} (--report shows them)", ("pattern", "score"), pictures)
        if finding.doubts:
            typer.echo("", err=True)
            table(f"doubts of {finding.method}", ("",), [(doubt,) for doubt in finding.doubts])
