from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
from scipy import stats
from toy import study

from firmground.errors import DataError, OutputError
from firmground.intervals import mean, rate
from firmground.studies.charts import Chart, draw
from firmground.studies.runner import run
from firmground.studies.tables import Column, Report, markdown_table, tabulate, write_report
from firmground.types import ignore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("hits", "count"), [(0, 12), (12, 12), (31, 32), (7, 20), (1, 1)])
def test_rates_have_wilson_intervals(hits: int, count: int) -> None:
    found = rate([True] * hits + [False] * (count - hits))
    expected = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert found.value == hits / count
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.count == count


def test_means_have_t_intervals() -> None:
    values = [3.5, 1.0, 4.25, 1.5, 9.0]
    found = mean(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / 5, scale=stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((3.85, low, high))
    assert mean([2.0]).high == math.inf
    with pytest.raises(DataError, match="at least one"):
        mean([])


def test_a_table_groups_and_totals() -> None:
    rows = [{"a": "x|y", "hit": True, "s": 1.0}, {"a": "x|y", "hit": False, "s": 3.0}] * 2
    rows += [{"a": "z", "hit": True}, {"a": "w", "hit": True, "s": 2.0}]
    columns = (Column(key="hit", title="hit, %", digits=0), Column(key="s", title="s", kind="mean"))
    lines = markdown_table(rows, by=("a",), columns=columns, total="all").splitlines()
    assert lines[0] == "| a | n | hit, % | s |"
    assert lines[2] == "| x\\|y | 4 | 50 (15 to 85) | 2.0 (0.2 to 3.8) |"
    assert lines[3] == "| z | 1 | 100 (21 to 100) | - |"
    assert lines[4] == "| w | 1 | 100 (21 to 100) | 2.0 |"  # too few for an interval of a mean
    assert lines[5].startswith("| **all** | 6 | 67 (30 to 90)")


def test_tabulates_the_records_of_a_folder(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "records"
    (toy / "stop").touch()
    run(study(), out, watch=ignore)
    made = tabulate(out, into=tmp_path / "tables", study=study())
    assert {path.name for path in made.files} == {"table.md", "summary.json"}
    assert json.loads((tmp_path / "tables" / "summary.json").read_text()) == {"n": 3}  # number 2 failed
    assert "| odd | 2 | 100.0 (34.2 to 100.0) | 5.0 |" in (tmp_path / "tables/table.md").read_text()
    assert not list((tmp_path / "tables").glob("*.part"))


def test_a_url_needs_a_folder_for_its_table(toy: Path) -> None:
    run(study(1), "memory://studies/toy-table", watch=ignore)
    with pytest.raises(OutputError, match="name a folder"):
        tabulate("memory://studies/toy-table", study=study())


def test_an_empty_study_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no study.json in .*; expected a folder of 'firmground study'"):
        tabulate(tmp_path)
    (tmp_path / "study.json").write_text('{"name": "toy"}')
    with pytest.raises(DataError, match="firmground study toy"):
        tabulate(tmp_path, study=study())


@pytest.mark.slow
def test_charts_are_drawn_and_repeat(tmp_path: Path) -> None:
    bars = Chart(name="bars", title="t", axis="a", bars={"x": rate([True, False]), "y": rate([True])})
    dots = Chart(name="dots", title="t", axis="a", dots={"x": [0.1, 0.9], "y": [0.5]}, line=0.4)
    files = write_report(Report(markdown="", summary={}, charts=(dots,)), tmp_path)
    assert {path.name for path in files} == {"table.md", "summary.json", "dots.svg", "dots.png"}
    assert (tmp_path / "dots.png").read_bytes()[:4] == b"\x89PNG"
    assert draw(dots, "svg") == (tmp_path / "dots.svg").read_bytes() != draw(bars, "svg")
