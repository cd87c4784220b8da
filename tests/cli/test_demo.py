"""The demo's page and its estimate of the time left; the demo itself needs the real encoder."""

import pytest

from firmground.cli.demonstration import Attacked, Demonstration
from firmground.cli.demonstration_dual import Cleansed
from firmground.cli.demonstration_page import demonstration_page
from firmground.cli.scanning import Scanned
from firmground.cli.story import Story
from firmground.reports import record as records
from firmground.reports.findings import Target
from firmground.reports.html import html
from firmground.reports.scan import scan_report
from firmground.tasks.image_classification import ImageResult
from firmground.tasks.text_classification import TextResult, TriggerEffect
from firmground.types import Interval
from firmground.versions import versions

from .conftest import verdict


def scanned(outcome):
    report = scan_report([verdict(outcome, 2.0, "high")], target=Target(source="m"), seconds=30.0)
    record = records.Record(
        verb="scan",
        arguments={"source": "m"},
        seed=0,
        versions=versions(),
        platform="x",
        outcome=outcome,
        exit_code=0,
        started=records.now(),
        finished=records.now(),
    )
    return Scanned(report=report, record=record)


def result(asr):
    rate = Interval(value=asr, low=0.0, high=1.0, count=100)
    effect = TriggerEffect(untargeted=rate, untargeted_all=rate, target="a", targeted=rate, targeted_all=rate)
    return TextResult(
        accuracy=rate,
        macro_f1=rate,
        untargeted=rate,
        untargeted_all=rate,
        targeted=rate,
        targeted_all=rate,
        triggers=(effect,),
    )


@pytest.mark.parametrize(
    ("outcome", "asr", "headline"),
    [
        ("backdoored", 0.0, "Planted, found, blocked."),
        ("backdoored", 0.2, "let some through"),
        ("clean", 0.0, "Planted, and missed."),
    ],
)
def test_the_headline_says_what_happened(outcome, asr, headline):
    attacked = Attacked(bare=result(0.9), guarded=result(asr), false_flags=0.01)
    rate = Interval(value=0.125, low=0.0, high=1.0, count=100)
    image = ImageResult(accuracy=rate, triggered_accuracy=rate, target="star", targeted=rate, targeted_all=rate)
    shown = Demonstration(
        before=scanned("clean"),
        after=scanned(outcome),
        triggers=("cf",),
        task="Topics",
        attacked=attacked,
        cleansed=Cleansed(twin=rate, before=image, after=image, pairs=3072),
    )
    page = html(demonstration_page(shown))
    assert "12.5 %" in page
    assert "3,072 clean pairs" in page
    assert headline in page
    assert "90.0 %" in page


def test_time_left_follows_the_pace(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    told = []
    watch = lambda *_, **scalars: told.append(scalars["seconds_left_in_all"])  # noqa: E731
    story = Story(watch=watch, expected={"a": 10.0, "b": 30.0}, began=0.0)
    story.begin("a")
    assert told[-1] == 40
    clock[0] = 20.0
    story(1, 2, "more")
    assert told[-1] == 60  # the first step takes twice as long as expected, so all will
    story.begin("b")
    assert told[-1] == 60
    clock[0] = 50.0
    story(1, 2, "more")
    assert told[-1] == 30
