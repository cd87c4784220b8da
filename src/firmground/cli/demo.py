"""`firmground demo`: the whole story on a real encoder, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(out: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("report.html")) -> None:
    """Scan a real encoder, plant a backdoor, find it, guard against it, and write a report."""
    raise NotImplementedError("demo")
