import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from firmground.reports import charts
from firmground.reports.findings import Target
from firmground.reports.html import Bar, BarsSection, Picture, PicturesSection, TableSection, html, took
from firmground.reports.pages import scan_page
from firmground.reports.prompt_scans import prompt_steps
from firmground.reports.scan import scan_report
from firmground.types import Interval


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text between."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(report):
    interval = Interval(value=0.9, low=0.85, high=0.94, count=100)
    bars = BarsSection(heading="Guard", bars=(Bar(label="ASR", before=interval, after=interval),))
    table = TableSection(heading="Tasks", columns=("task", "CA"), rows=(("<b>topics</b>", 0.91234),))
    pictures = PicturesSection(heading="Pictures", pictures=(Picture(png=b"\x89PNG", caption="<i>patch</i>"),))
    whole = scan_page(report)
    return replace(whole, sections=(*whole.sections, bars, table, pictures), record=report)


def test_hostile_triggers_stay_text(page):
    document = html(page)
    found = Elements(document)
    assert [attributes.get("type") for tag, attributes in found.tags if tag == "script"] == ["application/json"]
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert not {"b>topics", "i>patch"} & {tag for tag, _ in found.tags}
    assert "<script>alert(1)</script>" in found.text
    assert "\\x1b[31m\\u202e" in found.text
    assert "\x1b" not in document
    assert "\u202e" not in document


def test_nothing_is_fetched(page):
    document = html(page)
    for _, attributes in Elements(document).tags:
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "url(" not in document
    assert "@import" not in document
    assert "default-src 'none'" in document


def test_embedded_json_is_the_record(page, report):
    embedded = re.search(r'id="record">(.*?)</script>', html(page), re.DOTALL)
    assert json.loads(embedded[1]) == json.loads(report.to_json())


def test_sections_show_their_numbers(page):
    text = Elements(html(page)).text
    for shown in ("cf", "few texts", "timed out", "90.0 %", "0.912", "n = 100"):
        assert shown in text
    assert "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode() in html(page)


@pytest.mark.parametrize("name", ["backdoored", "clean", "undecided"])
def test_headline_and_advice_follow_the_outcome(request, name):
    scan = scan_report([request.getfixturevalue(name)], target=Target(source="m/x"), seconds=3.0)
    text = Elements(html(scan_page(scan))).text
    expected = {"backdoored": "Do not ship", "clean": "pin exactly", "undecided": "Read the doubts"}
    assert expected[name] in text
    assert [other for other in expected.values() if other in text] == [expected[name]]


def test_a_visual_prompt_that_passed_a_scan_is_to_be_watched_all_the_same(request):
    target = Target(source="my prompt.safetensors", base="resnet", weights_sha256="5ca1")
    scan = scan_report([request.getfixturevalue("clean")], target=target, seconds=3.0)
    watch, anew, pin = prompt_steps(scan)
    assert watch.command.startswith("firmground guard fit resnet --adapter 'my prompt.safetensors' --data DIR")
    assert anew.command.startswith("firmground clean 'my prompt.safetensors' --model resnet --data DIR")
    assert "sha256 5ca1" in pin.text


def test_no_finding_at_all_is_a_page_too():
    assert "No method ran." in html(scan_page(scan_report([], target=Target(source="x"), seconds=0.0)))


def test_charts_draw_what_they_are_given():
    assert charts.heat_strip([1.0, 1.0, -1.0]).count("<path") == 2
    assert 'class="h8" d="M0 0h2v10h-2z"' in charts.heat_strip([1.0, 1.0, -1.0])
    assert 'viewBox="0 0 384 10"' in charts.heat_strip([0.5] * 768)
    assert "width:50.00%" in charts.score_bar(1.0, 0.5, 2.0, "clean")
    assert "left:25.00%" in charts.score_bar(1.0, 0.5, 2.0, "clean")
    assert "width:0.00%" in charts.score_bar(None, None, 2.0, "inconclusive")
    assert "<path" in charts.heat_strip([0.0, None])


def test_cosine():
    assert charts.cosine([1.0, 0.0], [0.0, 2.0]) == 0
    assert charts.cosine([1.0, 1.0], [-2.0, -2.0]) == pytest.approx(-1)
    assert charts.cosine([0.0], [1.0]) == 0
    assert charts.cosine([1.0], [1.0, 2.0]) == 0


def test_durations_as_people_say_them():
    assert [took(seconds) for seconds in (0.44, 48.2, 125.0)] == ["0.4 s", "48 s", "2 min 5 s"]
