"""The record of a run: everything needed to repeat it and to compare, schema `firmground/record/1`."""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from firmground.errors import DataError
from firmground.reports.findings import Model, Target
from firmground.reports.writing import write_atomically
from firmground.versions import versions

EMBEDDED = re.compile(rb'<script type="application/json" id="record">(.*?)</script>', re.DOTALL)


class Record(Model):
    """One run. `arguments` are the command's own, so that the run can be repeated; `data` maps files to sha256.

    `methods` holds the settings of every method that ran, `results` what it gave (for a scan, the scan output),
    `device` where it ran; times are UTC, ISO 8601.
    """

    schema_: Literal["firmground/record/1"] = Field(default="firmground/record/1", alias="schema")
    verb: str
    arguments: dict[str, Any]
    seed: int
    methods: dict[str, dict[str, Any]] = Field(default_factory=dict)
    versions: dict[str, str]
    platform: str
    device: str = "cpu"
    target: Target | None = None
    data: dict[str, str] = Field(default_factory=dict)
    results: dict[str, Any] = Field(default_factory=dict)
    outcome: str
    exit_code: int
    started: str
    finished: str

    @classmethod
    def of_run(cls, verb: str, options: Any, results: Model, **facts: Any) -> Record:
        """The record of a run that ends now; `options` is a dataclass with a seed, `facts` are the other fields."""
        return cls(
            verb=verb,
            arguments=asdict(options),
            seed=options.seed,
            versions=versions(),
            platform=platform_name(),
            results=results.model_dump(mode="json"),
            finished=now(),
            **facts,
        )

    def write(self, path: str | Path) -> None:
        """Writes the record whole or not at all."""
        write_atomically(path, self.to_json() + "\n")

    @classmethod
    def read(cls, path: str | Path) -> Record:
        """Reads a record, or the one inside an HTML report; `DataError` for a file that holds none."""
        try:
            content = Path(path).read_bytes()
            embedded = EMBEDDED.search(content)
            return cls.model_validate_json(embedded[1] if embedded else content)
        except OSError as error:
            raise DataError(f"cannot read the record {path}: {error.strerror or error}") from error
        except ValidationError as error:
            place = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the whole file"
            raise DataError(
                f"{path} is not a record of a Firmground run ({place}: {error.errors()[0]['msg']})"
            ) from error


def now() -> str:
    """The time, UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def platform_name() -> str:
    """Operating system and processor, without the machine's name."""
    return f"{platform.system()} {platform.release()} {platform.machine()}, {sys.byteorder}-endian"


def file_sha256(path: str | Path) -> str:
    """The sha256 of one file, as hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashed(*paths: str | Path | None) -> dict[str, str]:
    """Those of the paths that are files, each with its sha256; a folder has none."""
    return {str(path): file_sha256(path) for path in paths if path is not None and Path(path).is_file()}
