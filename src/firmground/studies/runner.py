"""Runs a study: a grid of cases, one record a case, on this machine or on Ray.

A record is named by the hash of its case's settings. So a study that is run again does only what is missing or has
failed; killed at any point, it loses at most the cases in flight.
"""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from firmground.errors import DataError, OutputError, UsageError
from firmground.studies.store import STUDY_FILE, Store
from firmground.versions import versions

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from firmground.studies.tables import Report
    from firmground.types import Watch

RECORD = "firmground/study-record/1"
STUDY = "firmground/study/1"


class RunCase(Protocol):
    """What a study does with one case: a function at the top of a module, so that other processes can find it."""

    def __call__(self, case: Any, watch: Watch) -> dict[str, Any]:
        """Returns results that JSON can hold."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A grid of cases (frozen dataclasses of JSON types) and what is done with each.

    `version` goes into every case's hash: raise it when `run_case` changes its meaning, and all cases run again.
    `report` turns records into tables, plots and a summary; it also gets the records of the studies named in `beside`,
    where their folders, of that name, lie beside this study's.
    """

    name: str
    cases: tuple[Any, ...]
    run_case: RunCase
    report: Callable[[Sequence[Record]], Report]
    version: int = 1
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one case gave: `results`, or the `error` that ended it; `seconds` of wall time, `started` in UTC."""

    study: str
    version: int
    case: dict[str, Any]
    results: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0
    started: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as its file holds it."""
        return {"schema": RECORD, **asdict(self)}

    @classmethod
    def of(cls, content: dict[str, Any]) -> Record:
        """Rebuilds a record; `DataError` where the file is none."""
        if content.get("schema") != RECORD:
            raise DataError(f"expected a record of schema {RECORD}, got {content.get('schema')!r}")
        return cls(**{name: content[name] for name in cls.__dataclass_fields__ if name in content})


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a run ended: cases done and failed now, those that stood already, and those still missing."""

    done: int
    failed: int
    stood: int
    missing: int


def settings_of(case: Any) -> dict[str, Any]:
    """A case as JSON holds it; `DataError` where JSON cannot."""
    if not is_dataclass(case) or isinstance(case, type):
        raise DataError(f"a case must be a frozen dataclass, got {type(case).__name__}")
    try:
        found = json.loads(json.dumps(asdict(case), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DataError(f"the settings of a case must be plain JSON types: {error} in {case!r}") from error
    return dict(found)


def case_name(study: Study, case: Any) -> str:
    """The file that holds a case's record: a hash of the study's name, its version and the settings."""
    key = [study.name, study.version, settings_of(case)]
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20] + ".json"


def run(
    study: Study,
    out: str | os.PathLike[str],
    *,
    workers: int = 1,
    ray_address: str | None = None,
    limit: int | None = None,
    watch: Watch,
) -> Ran:
    """Runs the cases that `out` (a folder or an fsspec URL) holds no good record of; `limit` of them at most.

    With one worker, cases run here one after another and their own progress goes to `watch`; with more, each runs in
    a process of its own. `ray_address` ("local", "auto", "ray://...") sends them to Ray instead. A case that raises is
    recorded with its error and tried again on the next run.
    """
    if workers < 1:
        raise UsageError(f"a study needs at least one worker, got {workers}")
    from firmground.studies.workers import here, on_ray, processes

    store = Store(out)
    _claim(study, store)
    names = {case_name(study, case): case for case in study.cases}
    standing = set(store.names())
    missing = [case for name, case in names.items() if name not in standing or not _good(store, name)]
    chosen = missing[:limit]
    if ray_address is not None and chosen:  # a cluster takes half a minute to start
        records = on_ray(study, chosen, ray_address)
    elif workers > 1:
        records = processes(study, chosen, workers)
    else:
        records = here(study, chosen, watch)
    failed = _keep(study, store, records, len(chosen), watch)
    done = len(chosen) - failed
    return Ran(done=done, failed=failed, stood=len(names) - len(missing), missing=len(missing) - done)


def _keep(study: Study, store: Store, records: Iterator[tuple[Any, Record]], total: int, watch: Watch) -> int:
    failed = 0
    for count, (case, record) in enumerate(records, start=1):
        store.write(case_name(study, case), record.to_json())
        failed += record.error is not None
        watch(count, total, study.name, failed=float(failed))
    return failed


def execute(study: Study, case: Any, watch: Watch) -> Record:
    """Runs one case here; an exception becomes the record's error, an interrupt does not."""
    started, since = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    results: dict[str, Any] = {}
    error = None
    try:
        results = study.run_case(case, watch)
        json.dumps(results)
    except Exception as caught:
        results, error = {}, "".join(traceback.format_exception(caught)).strip()
    seconds = time.perf_counter() - since
    return _record(study, case, results=results, error=error, seconds=seconds, started=started)


def lost(study: Study, case: Any, reason: str) -> Record:
    """The record of a case whose worker died."""
    return _record(study, case, error=reason, started=datetime.now(UTC).isoformat(timespec="seconds"))


def _record(study: Study, case: Any, **found: Any) -> Record:
    return Record(study=study.name, version=study.version, case=settings_of(case), versions=versions(), **found)


def _claim(study: Study, store: Store) -> None:
    """Writes which study the folder holds; refuses a folder that holds another's, or anything else."""
    if STUDY_FILE not in store and not store.empty():
        raise OutputError(f"{store.place} already holds files, which are of no study; name a new folder")
    if STUDY_FILE in store:
        holder = store.read(STUDY_FILE).get("name")
        if holder != study.name:
            raise OutputError(f"{store.place} holds the study {holder}, not {study.name}; name another folder")
    store.write(STUDY_FILE, {"schema": STUDY, "name": study.name, "version": study.version, "cases": len(study.cases)})


def _good(store: Store, name: str) -> bool:
    try:
        return Record.of(store.read(name)).error is None
    except DataError:
        return False  # damaged by something else than us: run it again


def read_records(out: str | os.PathLike[str], *, version: int | None = None) -> list[Record]:
    """Every record in a folder or URL, failures too, of one version of the study where `version` is given."""
    store = Store(out)
    found = [Record.of(store.read(name)) for name in store.names() if len(name) == 25]
    return [record for record in found if version is None or record.version == version]
