from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # other processes import `toy` by that name


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the toy study counts its runs."""
    folder = tmp_path / "counters"
    folder.mkdir()
    monkeypatch.setenv("FIRMGROUND_TOY", str(folder))
    return folder
