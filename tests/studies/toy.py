"""A study small enough to know its answers; importable by other processes under the name `toy`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from firmground.studies.runner import Study


@dataclass(frozen=True, kw_only=True)
class Case:
    number: int
    group: str = "even"


def run_case(case: Case, watch: Any) -> dict[str, Any]:
    """Squares the number. A file beside the counters changes number 2: `stop` fails it, `kill` ends its process, `hang`
    keeps it busy and gets its process id."""
    folder = Path(os.environ["FIRMGROUND_TOY"])
    (folder / f"ran-{case.number}-{time.monotonic_ns()}").touch()
    if case.number == 2 and (folder / "stop").exists():
        raise ValueError("two is refused")
    if case.number == 2 and (folder / "kill").exists():
        os._exit(9)
    if case.number == 2 and (folder / "hang").exists():
        (folder / "hang").write_text(str(os.getpid()))
        time.sleep(600)
    return {"square": case.number**2, "nested": {"odd": bool(case.number % 2)}}


def report(records: Any) -> Any:
    from firmground.studies.tables import Column, Report, markdown_table, tidy  # keeps torch out of other processes

    rows = tidy(records)
    columns = (Column(key="nested/odd", title="odd, %"), Column(key="square", title="square", kind="mean"))
    return Report(markdown=markdown_table(rows, by=("group",), columns=columns, total="all"), summary={"n": len(rows)})


def study(count: int = 4) -> Study:
    cases = tuple(Case(number=n, group="odd" if n % 2 else "even") for n in range(count))
    return Study(name="toy", cases=cases, run_case=run_case, report=report)


def later(version: int) -> Study:
    return replace(study(), version=version)
