"""What the scan of a visual prompt says to a person: the headline, the outcome in words, and what to do now."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from firmground.reports.html import Step
from firmground.types import Outcome

if TYPE_CHECKING:
    from firmground.reports.scan import ScanReport

KIND = "visual-prompt"
HEADLINES = {
    Outcome.CLEAN: "No backdoor found in this prompt.",
    Outcome.BACKDOORED: "This prompt is backdoored.",
    Outcome.INCONCLUSIVE: "The scan could not decide.",
}


def prompt_lead(scan: ScanReport) -> str:
    """The outcome in two sentences."""
    pictures = [picture for finding in scan.findings for picture in finding.evidence.pictures]
    if scan.outcome is Outcome.BACKDOORED and pictures:
        return (
            f"Behind it {'a pattern leads' if len(pictures) == 1 else f'{len(pictures)} patterns lead'} images of "
            "other labels to one. Whoever knows such a pattern decides what the model says of an image."
        )
    if scan.outcome is Outcome.BACKDOORED:
        return (
            "It does to the model what only backdoored prompts do, though no trigger could be drawn. Whoever knows the "
            "trigger decides what the model says of an image."
        )
    if scan.outcome is Outcome.CLEAN:
        return (
            "Nothing was found that leads images of all labels to one behind this prompt. That is evidence against the "
            "attacks searched for, and no proof that nothing else is hidden."
        )
    return "No method reached a conclusion that it stands by. The doubts below say why; treat the prompt as untested."


def prompt_steps(scan: ScanReport) -> tuple[Step, ...]:
    """What to do now."""
    base = quote(str(scan.target.base))
    where = f"{quote(scan.target.source)} --model {base} --data DIR"
    if scan.outcome is Outcome.BACKDOORED:
        return (
            Step(text="Do not use this prompt, and tell whoever else got it."),
            Step(
                text="Learn one of your own: with a few hundred labelled images it takes minutes.",
                command=f"firmground prompt fit visual-prompting {base} --data DIR --out own.safetensors",
            ),
            Step(
                text="If it must be this one, clean it, and scan what comes out.",
                command=f"firmground clean {where} --out cleaned.safetensors --report clean.html",
            ),
        )
    if scan.outcome is Outcome.CLEAN:
        return (
            Step(
                text="Scans miss many backdoored prompts. So have a guard watch the images that go through it,",
                command=f"firmground guard fit {base} --adapter {quote(scan.target.source)} --data DIR "
                "--out guard.safetensors",
            ),
            Step(
                text="or take nothing over from it: this learns a fresh prompt from a few hundred labelled images.",
                command=f"firmground clean {where} --out cleaned.safetensors --report clean.html",
            ),
            Step(
                text=f"Pin exactly this file, sha256 {scan.target.weights_sha256}, and archive this report: the record "
                "inside it repeats the run.",
                command="firmground rerun REPORT.html",
            ),
        )
    return (
        Step(text="Read the doubts below; more clean images, of all labels, often settle them."),
        Step(text="Scan again.", command=f"firmground scan {where}"),
    )
