from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from toy import Case, later, study

from firmground.errors import DataError, MissingExtraError, OutputError, UsageError
from firmground.studies import find_study
from firmground.studies.runner import Study, case_name, read_records, run
from firmground.studies.store import Store
from firmground.types import ignore

if TYPE_CHECKING:
    from collections.abc import Callable


def ran(toy: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in toy.glob("ran-*"))


def squares(out: Any) -> dict[int, int]:
    return {record.case["number"]: record.results["square"] for record in read_records(out) if record.error is None}


def test_writes_one_record_a_case_and_skips_what_stands(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "records"
    first = run(study(), out, watch=ignore)
    assert (first.done, first.failed, first.stood, first.missing) == (4, 0, 0, 0)
    assert squares(out) == {0: 0, 1: 1, 2: 4, 3: 9}
    second = run(study(6), out, watch=ignore)
    assert (second.done, second.stood) == (2, 4)
    assert ran(toy) == [0, 1, 2, 3, 4, 5]


def test_limit_leaves_the_rest_for_later(toy: Path, tmp_path: Path) -> None:
    assert run(study(), tmp_path / "r", limit=3, watch=ignore).missing == 1
    assert run(study(), tmp_path / "r", watch=ignore).done == 1
    assert ran(toy) == [0, 1, 2, 3]


def test_a_failure_is_recorded_and_tried_again(toy: Path, tmp_path: Path) -> None:
    (toy / "stop").touch()
    assert run(study(), tmp_path / "r", watch=ignore).failed == 1
    failed = [record for record in read_records(tmp_path / "r") if record.error]
    assert [record.case["number"] for record in failed] == [2]
    assert "ValueError: two is refused" in str(failed[0].error)
    (toy / "stop").unlink()
    again = run(study(), tmp_path / "r", watch=ignore)
    assert (again.done, again.stood) == (1, 3)
    assert squares(tmp_path / "r")[2] == 4


def test_a_kill_loses_only_the_case_in_flight(toy: Path, tmp_path: Path) -> None:
    def killed_in_third(step: int, total: int, stage: str, **scalars: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study(), tmp_path / "r", watch=killed_in_third)
    assert sorted(squares(tmp_path / "r")) == [0, 1]
    assert run(study(), tmp_path / "r", watch=ignore).done == 2
    assert ran(toy) == [0, 1, 2, 3]


@pytest.mark.slow
def test_workers_end_with_a_killed_study(toy: Path, tmp_path: Path) -> None:
    (toy / "hang").touch()
    script = (
        "from toy import study\nfrom firmground.studies.runner import run\nfrom firmground.types import ignore\n"
        f"if __name__ == '__main__':\n    run(study(), {str(tmp_path / 'r')!r}, workers=2, watch=ignore)\n"
    )
    (tmp_path / "main.py").write_text(script)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen([sys.executable, str(tmp_path / "main.py")], env={**os.environ, "PYTHONPATH": paths})
    worker = int(until(lambda: (toy / "hang").read_text()))
    parent.kill()
    parent.wait()
    assert until(lambda: not alive(worker))


def until(found: Callable[[], Any], seconds: float = 300) -> Any:
    """What `found` returns once that is true; fails when it takes longer."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def alive(process: int) -> bool:
    """Whether a process runs: neither gone nor a zombie that nobody waits for."""
    status = Path(f"/proc/{process}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_kill_while_writing_leaves_no_record(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(source: str, target: str) -> None:
        if not target.endswith("study.json"):
            raise KeyboardInterrupt
        Path(source).rename(target)

    with monkeypatch.context() as patched:
        patched.setattr("firmground.studies.store.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            run(study(), tmp_path / "r", watch=ignore)
    assert Store(tmp_path / "r").names() == []
    assert run(study(), tmp_path / "r", watch=ignore).done == 4


def test_a_damaged_record_runs_again(toy: Path, tmp_path: Path) -> None:
    run(study(2), tmp_path / "r", watch=ignore)
    path = tmp_path / "r" / case_name(study(), Case(number=1, group="odd"))
    path.write_text(path.read_text()[:40])
    assert run(study(2), tmp_path / "r", watch=ignore).done == 1
    assert squares(tmp_path / "r") == {0: 0, 1: 1}


def test_names_depend_on_settings_and_version_alone() -> None:
    assert case_name(study(), Case(number=3, group="odd")) == "3f594e098cf438db7a13.json"
    names = {case_name(study(), case) for case in study(50).cases}
    assert len(names) == 50
    assert case_name(later(2), Case(number=3)) != case_name(study(), Case(number=3))


def test_a_url_serves_as_a_folder_does(toy: Path) -> None:
    out = "memory://studies/toy-url"
    try:
        (toy / "stop").touch()
        assert run(study(), out, watch=ignore).failed == 1
        (toy / "stop").unlink()
        assert run(study(), out, watch=ignore).done == 1
        assert squares(out) == {0: 0, 1: 1, 2: 4, 3: 9}
        left = fsspec.filesystem("memory").ls("/studies/toy-url", detail=False)
        assert len(left) == 5
        assert not [name for name in left if name.endswith(".part")]
    finally:
        fsspec.filesystem("memory").rm("/studies", recursive=True)


@pytest.mark.slow
def test_processes_give_the_same_records_and_survive_a_death(toy: Path, tmp_path: Path) -> None:
    (toy / "kill").touch()
    out = tmp_path / "r"
    assert run(study(), out, workers=2, watch=ignore).failed in (1, 2)  # the dying process takes its neighbour along
    assert len(read_records(out)) == 4
    (toy / "kill").unlink()
    assert run(study(), out, workers=2, watch=ignore).missing == 0
    assert squares(out) == {0: 0, 1: 1, 2: 4, 3: 9}


def test_tells_how_far_it_has_come(toy: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, float]] = []
    (toy / "stop").touch()
    run(study(), tmp_path / "r", watch=lambda step, total, stage, **s: told.append((step, total, s["failed"])))
    assert told == [(1, 4, 0.0), (2, 4, 0.0), (3, 4, 1.0), (4, 4, 1.0)]


def test_a_folder_holds_one_study(toy: Path, tmp_path: Path) -> None:
    run(study(1), tmp_path / "r", watch=ignore)
    assert json.loads((tmp_path / "r" / "study.json").read_text())["name"] == "toy"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="full already holds files, which are of no study; name a new folder"):
        run(study(), tmp_path / "full", watch=ignore)
    with pytest.raises(OutputError, match="holds the study toy, not other"):
        run(replace(study(), name="other"), tmp_path / "r", watch=ignore)


def test_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Bad:
        thing: object

    with pytest.raises(DataError, match="plain JSON types"):
        case_name(study(), Bad(thing=object()))
    with pytest.raises(DataError, match="frozen dataclass"):
        case_name(study(), {"number": 1})
    with pytest.raises(UsageError, match="at least one worker"):
        run(study(), tmp_path / "r", workers=0, watch=ignore)
    with pytest.raises(UsageError, match="language_scan"):
        find_study("nothing")


def test_results_that_json_cannot_hold_are_a_failure(toy: Path, tmp_path: Path) -> None:
    def unwritable(case: Any, watch: Any) -> dict[str, Any]:
        return {"value": {1, 2}}

    broken: Study = replace(study(1), run_case=unwritable)
    assert run(broken, tmp_path / "r", watch=ignore).failed == 1
    assert "not JSON serializable" in str(read_records(tmp_path / "r")[0].error)


class FakeRay(types.ModuleType):
    """Runs a task when its result is asked for; the task of number 2 is lost with its worker."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

    def __init__(self) -> None:
        super().__init__("ray")
        self.calls: list[Any] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, **settings: Any) -> None:
        self.calls.append(settings)

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def remote(self, function: Any) -> Any:
        task = types.SimpleNamespace(remote=lambda *arguments: (function, arguments))
        return types.SimpleNamespace(options=lambda **settings: task)

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return references[-num_returns:], references[:-num_returns]

    def get(self, reference: Any) -> Any:
        function, arguments = reference
        if arguments[1].number == 2:
            raise self.exceptions.RayError("worker lost")
        return function(*arguments)


def test_sends_cases_to_ray(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    found = run(replace(study(), report=len), tmp_path / "r", ray_address="ray://head:10001", watch=ignore)
    assert (found.done, found.failed) == (3, 1)
    assert fake.calls == [{"log_to_driver": False, "address": "ray://head:10001"}, "shutdown"]
    assert [r.error for r in read_records(tmp_path / "r") if r.error] == [
        "the process that ran this case died; it may have been out of memory (worker lost)"
    ]


def test_without_ray_says_what_to_install(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'firmground\[ray\]'"):
        run(study(), tmp_path / "r", ray_address="local", watch=ignore)
