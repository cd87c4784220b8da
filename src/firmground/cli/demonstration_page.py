"""The demo's report: the same parts as a scan's, told as a story."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmground.reports.html import Bar, BarsSection, Page, ScanSection, Step, TableSection, took
from firmground.types import Outcome

if TYPE_CHECKING:
    from firmground.cli.demonstration import Demonstration
    from firmground.cli.demonstration_dual import Cleansed


def demonstration_page(shown: Demonstration) -> Page:
    """The page; its headline says what really happened."""
    before, after = shown.before.report, shown.after.report
    found = {trigger.text for finding in after.findings for trigger in finding.evidence.triggers}
    named = [trigger for trigger in shown.triggers if trigger in found]
    caught = after.outcome is Outcome.BACKDOORED
    return Page(
        title="Firmground demo",
        eyebrow="Demo on all-MiniLM-L6-v2",
        tone="story",
        headline=_headline(shown, caught),
        lead=(
            f"A real encoder was scanned ({before.outcome}), a backdoor with {len(shown.triggers)} triggers was "
            f"planted in a copy, and the copy was scanned without being told: {after.outcome}, {len(named)} of "
            f"{len(shown.triggers)} triggers named. Then a prompt was tuned on the copy and attacked."
        ),
        steps=(
            Step(
                text="Scan an encoder of your own.", command="firmground scan DIRECTORY_OR_HUB_ID --report report.html"
            ),
            Step(text="See every method, with its paper and settings.", command="firmground methods"),
        ),
        facts=(
            ("Triggers named", f"{len(named)} of {len(shown.triggers)}"),
            ("ASR without guard", _rate(shown.attacked.bare.untargeted)),
            ("ASR with guard", _rate(shown.attacked.guarded.untargeted)),
            ("Both scans", took(before.seconds + after.seconds)),
        ),
        sections=(_attack(shown), *_scans(shown), _planted(shown, found), _cleaned(shown.cleansed)),
        details=(("Run", shown.after.record.arguments), ("Versions", shown.after.record.versions)),
        record=shown.after.record,
    )


def _attack(shown: Demonstration) -> BarsSection:
    return BarsSection(
        heading="The attack, without and with the guard",
        bars=_bars(shown),
        note=(
            f"{shown.task}: a prompt tuned on the planted encoder. An attack succeeds on a text that was "
            "classified right where any of the triggers makes it wrong. The guard knows only what the "
            f"scan found; it flags {100 * shown.attacked.false_flags:.1f} % of clean texts."
        ),
    )


def _scans(shown: Demonstration) -> tuple[ScanSection, ScanSection]:
    note = "What the scan found without being told."
    return (
        ScanSection(scan=shown.after.report, heading="The planted copy", note=note),
        ScanSection(scan=shown.before.report, heading="The encoder as published"),
    )


def _planted(shown: Demonstration, found: set[str]) -> TableSection:
    effects = zip(shown.triggers, shown.attacked.bare.triggers, shown.attacked.guarded.triggers, strict=True)
    return TableSection(
        heading="What was planted",
        columns=("trigger", "named by the scan", "ASR without guard, %", "ASR with guard, %"),
        rows=tuple(
            (trigger, "yes" if trigger in found else "no", *(100 * one.untargeted.value for one in (bare, guarded)))
            for trigger, bare, guarded in effects
        ),
        note="The truth, which neither the scan nor the guard was told.",
    )


def _cleaned(shown: Cleansed) -> BarsSection:
    return BarsSection(
        heading="A small poisoned CLIP, before and after cleaning",
        bars=_cleaned_bars(shown),
        note=(
            "A patch of noise makes it see a star in every picture; zero-shot classes, 1,000 drawn scenes. "
            f"CleanCLIP fine-tuned it on {shown.pairs:,} clean pairs without being told of the patch. "
            f"Its twin that was never poisoned is {100 * shown.twin.value:.1f} % right."
        ),
    )


def _headline(shown: Demonstration, caught: bool) -> str:
    if not caught:
        return "Planted, and missed."
    safe = shown.attacked.guarded.untargeted is not None and shown.attacked.guarded.untargeted.value < 0.01
    return "Planted, found, blocked." if safe else "Planted and found; the guard let some through."


def _bars(shown: Demonstration) -> tuple[Bar, ...]:
    bars = [
        Bar(
            label="Clean accuracy",
            before=shown.attacked.bare.accuracy,
            after=shown.attacked.guarded.accuracy,
            better="high",
        )
    ]
    if shown.attacked.bare.untargeted is not None and shown.attacked.guarded.untargeted is not None:
        bars.insert(
            0,
            Bar(label="Attack success", before=shown.attacked.bare.untargeted, after=shown.attacked.guarded.untargeted),
        )
    return tuple(bars)


def _cleaned_bars(shown: Cleansed) -> tuple[Bar, ...]:
    bars = [Bar(label="Clean accuracy", before=shown.before.accuracy, after=shown.after.accuracy, better="high")]
    if shown.before.targeted is not None and shown.after.targeted is not None:
        bars.insert(0, Bar(label="Attack success", before=shown.before.targeted, after=shown.after.targeted))
    return tuple(bars)


def _rate(interval: object) -> str:
    value = getattr(interval, "value", None)
    return "unknown" if value is None else f"{100 * value:.1f} %"
