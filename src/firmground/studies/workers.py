"""Who runs the cases: this process, several processes, or a Ray cluster. Each yields a case with its record."""

from __future__ import annotations

import os
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, Any

from firmground.errors import MissingExtraError
from firmground.studies.runner import Record, Study, execute, lost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from firmground.types import Watch

DIED = "the process that ran this case died; it may have been out of memory"


def silent(step: int, total: int, stage: str, **scalars: float) -> None:
    """A watch for other processes, which have nobody to tell."""


def here(study: Study, cases: Sequence[Any], watch: Watch) -> Iterator[tuple[Any, Record]]:
    """One case after another in this process."""
    for case in cases:
        yield case, execute(study, case, watch)


def processes(study: Study, cases: Sequence[Any], workers: int) -> Iterator[tuple[Any, Record]]:
    """As many cases at a time as `workers`; a process that dies costs only the cases in flight."""
    waiting = list(reversed(cases))
    while waiting:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (workers,))
        try:
            yield from _drain(pool, study, waiting, workers)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _drain(pool: ProcessPoolExecutor, study: Study, waiting: list[Any], workers: int) -> Iterator[tuple[Any, Record]]:
    """Until nothing waits or the pool breaks; never more in flight than can run, so that few are lost with it."""
    flying: dict[Future[Record], Any] = {}
    broken = False
    while flying or (waiting and not broken):
        while waiting and not broken and len(flying) < workers:
            case = waiting.pop()
            try:
                flying[pool.submit(execute, study, case, silent)] = case
            except BrokenProcessPool:
                waiting.append(case)
                broken = True
        for future in wait(flying, return_when=FIRST_COMPLETED).done:
            case = flying.pop(future)
            error = future.exception()
            broken = broken or isinstance(error, BrokenProcessPool)
            yield case, future.result() if error is None else lost(study, case, f"{DIED} ({error!r})")


def _begin(workers: int) -> None:
    """Shares the cores (torch reads this when the first case imports it), and lets no process outlive the study."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # nothing half-written is left: records are renamed into place by the parent


def on_ray(study: Study, cases: Sequence[Any], address: str) -> Iterator[tuple[Any, Record]]:
    """All cases as tasks of a Ray cluster; "local" starts one on this machine. Firmground must be installed there."""
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray") from None
    started = not ray.is_initialized()
    if started:
        alone: dict[str, Any] = {"include_dashboard": False} if address == "local" else {"address": address}
        ray.init(log_to_driver=False, **alone)
    try:
        task = ray.remote(execute).options(max_retries=0)
        flying = {task.remote(study, case, silent): case for case in cases}
        while flying:
            for reference in ray.wait(list(flying), num_returns=1)[0]:
                yield flying[reference], _fetch(ray, reference, study, flying.pop(reference))
    finally:
        if started:
            ray.shutdown()


def _fetch(ray: Any, reference: Any, study: Study, case: Any) -> Record:
    try:
        record: Record = ray.get(reference)
    except ray.exceptions.RayError as error:
        return lost(study, case, f"{DIED} ({error})")
    return record
