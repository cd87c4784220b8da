"""`firmground rerun`: repeats a recorded run and says whether it comes out the same."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firmground.cli.options import AsJson, visible
from firmground.cli.progress import progress
from firmground.errors import DataError

if TYPE_CHECKING:
    from firmground.reports.record import Record
    from firmground.types import Watch


def rerun(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="A record, or an HTML report with one in it.")],
    as_json: AsJson = False,
) -> None:
    """Repeat a recorded run; exits as it did if outcomes and (on CPU) numbers agree, else 2."""
    from firmground.reports.record import Record

    before = Record.read(record)
    again = REPEATS.get(before.verb)
    if again is None:
        raise DataError(f"{record} records '{before.verb}'; 'firmground rerun' repeats: {', '.join(REPEATS)}")
    check_data(before)
    with progress() as watch:
        after = again(before, watch)
    found = [*after.differences, *other_circumstances(before, after.record, found=bool(after.differences))]
    for line in found:
        typer.echo(visible(f"differs: {line}"), err=True)
    if not found:
        typer.echo(f"The same again: {after.record.outcome}, all outcomes and {after.compared} agree.", err=True)
    if as_json:
        told = {"agrees": not found, "differences": found, before.verb: after.record.results}
        typer.echo(json.dumps(told))
    raise typer.Exit(2 if found else after.record.exit_code)


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """A run that was repeated: its record, what was `compared`, and where it disagrees, in words."""

    record: Record
    compared: str
    differences: list[str]


def repeat_scan(before: Record, watch: Watch) -> Repeated:
    """Scans again."""
    from firmground.cli.scanning import ScanOptions, run_scan
    from firmground.reports.record import differences
    from firmground.reports.scan import ScanReport

    after = run_scan(ScanOptions.of(before.arguments), watch)
    tolerance = 0.0 if on_cpu(before, after.record) else float("inf")
    found = differences(ScanReport.model_validate(before.results), after.report, tolerance=tolerance)
    return Repeated(record=after.record, compared="scores", differences=list(found))


def repeat_clean(before: Record, watch: Watch) -> Repeated:
    """Cleans again, into a folder that does not stay."""
    if before.results.get("schema") == "firmground/prompt-clean/1":
        return repeat_prompt_clean(before, watch)
    from firmground.cli.cleaning import CleanOptions, run_clean
    from firmground.reports.cleaning import CleanReport, unlike

    with tempfile.TemporaryDirectory() as folder:
        after = run_clean(CleanOptions.of(before.arguments), Path(folder) / "cleaned", watch)
    exact = on_cpu(before, after.record)
    found = unlike(CleanReport.model_validate(before.results), after.report, exact=exact)
    return Repeated(record=after.record, compared="weights" if exact else "verdicts", differences=list(found))


def repeat_prompt_clean(before: Record, watch: Watch) -> Repeated:
    """Cleans a visual prompt again."""
    from firmground.cli.prompt_cleaning import PromptCleanOptions, run_prompt_clean
    from firmground.reports.prompt_cleaning import PromptCleanReport, unlike

    with tempfile.TemporaryDirectory() as folder:
        after = run_prompt_clean(PromptCleanOptions.of(before.arguments), Path(folder) / "cleaned.safetensors", watch)
    exact = on_cpu(before, after.record)
    found = unlike(PromptCleanReport.model_validate(before.results), after.report, exact=exact)
    return Repeated(record=after.record, compared="pixels" if exact else "verdicts", differences=list(found))


def repeat_prompt(before: Record, watch: Watch) -> Repeated:
    """Learns or plants a visual prompt again, into a file that does not stay."""
    from firmground.cli.prompt_learning import PromptOptions, run_prompt
    from firmground.reports.prompts import PromptReport, unlike

    with tempfile.TemporaryDirectory() as folder:
        after = run_prompt(PromptOptions.of(before.arguments), Path(folder) / "prompt.safetensors", watch)
    exact = on_cpu(before, after.record)
    found = unlike(PromptReport.model_validate(before.results), after.report, exact=exact)
    return Repeated(record=after.record, compared="pixels" if exact else "labels", differences=list(found))


def repeat_perturb(before: Record, watch: Watch) -> Repeated:
    """Makes adversarial images again, in a folder that does not stay."""
    from firmground.cli.perturbing import PerturbOptions, run_perturb
    from firmground.reports.perturbing import PerturbReport, unlike

    with tempfile.TemporaryDirectory() as folder:
        after = run_perturb(PerturbOptions.of(before.arguments), Path(folder) / "perturbed", watch)
    exact = on_cpu(before, after.record)
    found = unlike(PerturbReport.model_validate(before.results), after.report, exact=exact)
    return Repeated(record=after.record, compared="images" if exact else "names of images", differences=list(found))


REPEATS = {
    "scan": repeat_scan,
    "clean": repeat_clean,
    "prompt-fit": repeat_prompt,
    "implant": repeat_prompt,
    "perturb": repeat_perturb,
}


def on_cpu(before: Record, after: Record) -> bool:
    """Whether both runs were on a CPU, where the same seed gives the same numbers."""
    return before.device == after.device == "cpu"


def check_data(record: Record) -> None:
    """Refuses to compare runs on different data."""
    from firmground.reports.record import file_sha256

    for path, digest in record.data.items():
        if not Path(path).is_file():
            raise DataError(f"the record needs {path}, which is not here; run this where the first run took place")
        if file_sha256(path) != digest:
            raise DataError(f"{path} has changed since the record was made; restore it to repeat the run")


def other_circumstances(before: Record, after: Record, *, found: bool) -> list[str]:
    """Other weights and settings in words; other versions are named as the likely reason for what was `found`."""
    told = []
    if before.target and after.target and before.target.weights_sha256 != after.target.weights_sha256:
        told.append("the weights are not those of then")
    for name in sorted(before.methods.keys() & after.methods.keys()):
        if before.methods[name] != after.methods[name]:
            told.append(f"{name} ran with other settings: {before.methods[name]}, now {after.methods[name]}")
    changed = [
        f"{name} {version} then, {after.versions.get(name)} now"
        for name, version in before.versions.items()
        if after.versions.get(name) != version
    ]
    if (found or told) and changed:
        told.append(f"likely because of other versions: {'; '.join(changed)}")
    return told
