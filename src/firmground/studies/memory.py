"""The largest resident memory of this process while something runs."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path
from typing import Self

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures a `with` block. `peak_mb` is in MiB; where Linux cannot reset its mark, it covers the whole process."""

    peak_mb: float = 0.0

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            CLEAR.write_text("5")
        return self

    def __exit__(self, *error: object) -> None:
        self.peak_mb = round(_peak(), 1)


def _peak() -> float:
    if STATUS.is_file():
        line = next((line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")), None)
        if line:
            return int(line.split()[1]) / 1024
    scale = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
