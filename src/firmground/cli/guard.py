"""`firmground guard`: fits, applies and evaluates a guard in front of a backdoored encoder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from firmground.cli.options import (
    AsJson,
    Classes,
    Device,
    Manifest,
    MeasuredData,
    MeasuredTriggers,
    Revision,
    Root,
    Seed,
    Settings,
    Target,
    Templates,
    Texts,
    labelled,
    path_or_none,
    table,
)
from firmground.cli.progress import progress
from firmground.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Guard a backdoored encoder that must be used.")

FIT_EXAMPLE = (
    "Examples: firmground guard fit bert --adapter prompt --scan scan.json --out guard.safetensors. For a dual "
    "encoder: firmground guard fit clip --data clean.csv --classes names.txt --out guard.safetensors. For a visual "
    "prompt: firmground guard fit resnet --adapter prompt.safetensors --data photos --out guard.safetensors"
)

Encoder = Annotated[str, typer.Argument(metavar="ENCODER", help="Directory or hub id of the encoder.")]
Guard = Annotated[Path, typer.Argument(metavar="GUARD", help="A file that 'firmground guard fit' wrote.")]
Adapter = Annotated[
    Path | None,
    typer.Option(
        metavar="PROMPT", help="For a language encoder: directory of the tuned prompt; for images a visual prompt."
    ),
]
Base = Annotated[
    str | None, typer.Option("--encoder", help="The encoder; the one the guard was fitted on if left out.")
]


@app.callback()
def guard() -> None:
    """Guard a backdoored encoder that must be used."""


@app.command(epilog=FIT_EXAMPLE)
def fit(
    encoder: Encoder,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the guard goes.")],
    adapter: Adapter = None,
    scan: Annotated[
        Path | None, typer.Option(help="For a language encoder: what 'firmground scan --json' printed of it.")
    ] = None,
    texts: Texts = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PAIRS",
            help="For a dual encoder: clean pairs of known classes; for a classifier or a visual prompt images with "
            "labels.",
        ),
    ] = None,
    root: Root = None,
    classes: Classes = None,
    templates: Templates = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="See 'firmground methods guards', 'image-guards', 'classifier-guards'; pv-guard, bdetclip, "
            "part-swap (classifiers, visual prompts) if left out.",
        ),
    ] = None,
    revision: Revision = None,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Fit a guard: to a tuned prompt, from a scan and clean texts; to an image model or prompt, on clean images."""
    from firmground.cli.subjects import needs_dual
    from firmground.reports.writing import check_file

    check_file(out)
    if _stands_before_images(encoder, adapter, revision):
        if data is None or scan is not None or texts is not None:
            raise UsageError("a guard of an image classifier needs --data, clean images, and no --scan or --texts")
        from firmground.cli.guarding_classifiers import Guarding, fit_classifier

        asked = Guarding(
            model=encoder,
            prompt=path_or_none(adapter),
            revision=revision,
            data=data,
            root=path_or_none(root),
            classes=path_or_none(classes),
            templates=path_or_none(templates),
            settings=tuple(settings or ()),
            seed=seed,
            device=device,
        )
        with progress() as watch:
            _tell_fitted(fit_classifier(asked, method, out, watch), out, as_json)
        return
    if needs_dual(encoder, revision):
        if data is None or adapter is not None or scan is not None:
            raise UsageError(f"a guard of images needs --data, and no --adapter or --scan; {encoder} is a dual encoder")
        from firmground.cli.guarding_images import ImageFitting, fit_images

        wanted = ImageFitting(
            encoder=encoder,
            revision=revision,
            data=data,
            root=path_or_none(root),
            classes=path_or_none(classes),
            templates=path_or_none(templates),
            method=method or "bdetclip",
            settings=tuple(settings or ()),
            seed=seed,
            device=device,
        )
        with progress() as watch:
            _tell_fitted(fit_images(wanted, out, watch), out, as_json)
        return
    if adapter is None or scan is None:
        raise UsageError(f"a guard on {encoder}, a language encoder, needs --adapter, its tuned prompt, and --scan")
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli import guarding

        fitted = guarding.fit(
            guarding.Fitting(
                encoder=encoder, revision=revision, adapter=adapter, scan=scan, texts=texts, method=method or "pv-guard"
            ),
            settings=settings or (),
            seed=seed,
            device=device,
            watch=watch,
        )
    fitted.save(out)
    flags = fitted.false_flags
    typer.echo(
        f"Guard in {out}: watches {len(fitted.triggers)} triggers and {len(fitted.matcher.vectors)} vectors; flags "
        f"{flags.percent} of {flags.count} clean texts.",
        err=True,
    )
    for doubt in fitted.doubts:
        typer.echo(f"doubt: {doubt}", err=True)
    if as_json:
        found = {"triggers": [trigger.text for trigger in fitted.triggers], "false_flags": asdict(flags)}
        typer.echo(json.dumps({"schema": "firmground/guard-fit/1", **found, "doubts": list(fitted.doubts)}))


@app.command()
def apply(
    guard: Guard,
    adapter: Adapter = None,
    texts: Annotated[Path | None, typer.Option(help="Texts to classify, one a line.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="For a guard of images: an image to classify, or a folder of them.")
    ] = None,
    classes: Classes = None,
    encoder: Base = None,
    revision: Revision = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Classify texts or images behind a guard: each with its label, and whether it was flagged."""
    if _is_of_classifiers(guard):
        if images is None or texts is not None or encoder is None:
            raise UsageError(f"{guard} is a guard of a classifier: it needs --encoder, its model, and --images")
        from firmground.cli.guarding_classifiers import Guarding, answer_classifier

        asked = Guarding(model=encoder, prompt=path_or_none(adapter), revision=revision, device=device)
        with progress() as watch:
            results = answer_classifier(guard, images, asked, watch)
        _tell_answers(results, as_json)
        return
    if _is_of_images(guard):
        if images is None or adapter is not None or texts is not None:
            raise UsageError(f"{guard} is a guard of images: it needs --images, and no --adapter or --texts")
        from firmground.cli.guarding_images import answer_images

        with progress() as watch:
            results = answer_images(
                guard, images, encoder=encoder, revision=revision, classes=classes, device=device, watch=watch
            )
        _tell_answers(results, as_json)
        return
    if texts is None or adapter is None or images is not None:
        raise UsageError(f"{guard} is a guard of texts: it needs --adapter and --texts, and no --images")
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli import guarding
        from firmground.data.files import read_texts

        lines = read_texts(texts)
        pipeline, _ = guarding.guarded(guard, adapter, encoder=encoder, revision=revision, device=device)
        results = guarding.answers(pipeline, lines)
    rows = [
        (str(row["answer"]), "flagged" if row["flagged"] else "", " ".join(row["removed"]), row["text"])
        for row in results
    ]
    table("", ("answer", "guard", "removed", "text"), rows)
    if as_json:
        typer.echo(json.dumps({"schema": "firmground/guarded/1", "results": results}, indent=2))


@app.command()
def evaluate(
    guard: Guard,
    data: MeasuredData,
    adapter: Adapter = None,
    trigger: MeasuredTriggers = None,
    settings: Settings = None,
    target: Target = None,
    manifest: Manifest = None,
    root: Root = None,
    classes: Classes = None,
    templates: Templates = None,
    encoder: Base = None,
    revision: Revision = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a prompt or an image model without and with a guard."""
    if _is_of_classifiers(guard):
        if encoder is None or len(trigger or ()) > 1:
            raise UsageError(f"{guard} is a guard of a classifier: it needs --encoder, and takes one --trigger at most")
        from firmground.cli.guarding_classifiers import Guarding, evaluate_classifier

        front = Guarding(
            model=encoder,
            prompt=path_or_none(adapter),
            revision=revision,
            data=str(data),
            root=path_or_none(root),
            classes=path_or_none(classes),
            templates=path_or_none(templates),
            settings=tuple(settings or ()),
            seed=seed,
            device=device,
        )
        named, where = trigger[0] if trigger else None, path_or_none(manifest)
        with progress() as watch:
            told = evaluate_classifier(guard, front, trigger=named, target=target, manifest=where, watch=watch)
        _tell_measured(told, as_json)
        return
    if _is_of_images(guard):
        if adapter is not None or len(trigger or ()) > 1:
            raise UsageError(f"{guard} is a guard of images: it takes no --adapter, and one --trigger at most")
        from firmground.cli.dual_evaluation import DualEvaluation
        from firmground.cli.guarding_images import evaluate_images

        asked = DualEvaluation(
            source=encoder or "",
            revision=revision,
            data=str(data),
            root=path_or_none(root),
            trigger=trigger[0] if trigger else None,
            settings=tuple(settings or ()),
            target=target,
            manifest=path_or_none(manifest),
            classes=path_or_none(classes),
            templates=path_or_none(templates),
            seed=seed,
            device=device,
        )
        with progress() as watch:
            _tell_measured(evaluate_images(guard, asked, watch), as_json)
        return
    if adapter is None:
        raise UsageError(f"{guard} is a guard of texts: it needs --adapter, the tuned prompt")
    with progress() as watch:
        watch(0, 1, "loading")
        from firmground.cli import guarding, measuring

        rows = labelled(data)
        pipeline, tuned = guarding.guarded(guard, adapter, encoder=encoder, revision=revision, device=device)
        rows = measuring.aligned(rows, tuned.label_names)
        watch(0, 2, "evaluating without the guard")
        bare = measuring.measure(tuned.pipeline(), rows, trigger or (), seed=seed)
        watch(1, 2, "evaluating with the guard")
        behind = measuring.measure(pipeline, rows, trigger or (), seed=seed)
    before, after = measuring.rates(bare), measuring.rates(behind)
    lines = [
        (measuring.TITLES[name], before[name].percent, after[name].percent, str(before[name].count)) for name in before
    ]
    table("", ("", "without the guard", "with the guard", "n"), lines)
    if as_json:
        both = {"without": measuring.plain(bare), "with": measuring.plain(behind)}
        typer.echo(json.dumps({"schema": "firmground/guard-evaluation/1", **both}, indent=2))


def _stands_before_images(encoder: str, adapter: Path | None, revision: str | None) -> bool:
    """Whether a guard is asked for before an image classifier, or before a visual prompt, which is a file."""
    from firmground.cli.bases import is_classifier

    if Path(encoder).is_file():
        raise UsageError(f"{encoder} is a file; name the model, and a visual prompt on it with --adapter")
    return (adapter is not None and adapter.is_file()) or is_classifier(encoder, revision)


def _is_of_classifiers(guard: Path) -> bool:
    from firmground.defenses.guards.classifier_files import is_classifier_guard

    return is_classifier_guard(guard)


def _is_of_images(guard: Path) -> bool:
    from firmground.defenses.guards.image_files import is_image_guard

    return is_image_guard(guard)


def _tell_fitted(told: dict[str, Any], out: Path, as_json: bool) -> None:
    from firmground.types import Interval

    flags = Interval(**told["false_flags"])
    what = f"{told['method']}, flags {flags.percent} of {flags.count} clean images"
    typer.echo(f"Guard in {out}: {what}.", err=True)
    for line in told["left_out"]:
        typer.echo(line, err=True)
    if as_json:
        typer.echo(json.dumps(told))


def _tell_answers(results: list[dict[str, Any]], as_json: bool) -> None:
    rows = [(row["answer"] or "unreadable", "flagged" if row["flagged"] else "", row["image"]) for row in results]
    table("", ("answer", "guard", "image"), rows)
    if as_json:
        typer.echo(json.dumps({"schema": "firmground/guarded/1", "results": results}, indent=2))


def _tell_measured(told: dict[str, Any], as_json: bool) -> None:
    from firmground.cli.guarding_classifiers import TITLES
    from firmground.cli.guarding_images import GUARDED_TITLES
    from firmground.types import Interval

    found = {name: Interval(**rate) for name, rate in told["results"].items()}
    rows = [
        ((TITLES | GUARDED_TITLES)[name], interval.percent, str(interval.count)) for name, interval in found.items()
    ]
    table("", ("", "rate (95 % interval)", "n"), rows)
    if told["auroc"] is not None:
        typer.echo(f"\nAUROC of triggered against clean images: {told['auroc']:.3f}", err=True)
    for line in told["left_out"]:
        typer.echo(line, err=True)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
