"""The examples in docstrings are true. Only modules that hold one are imported."""

import doctest
import importlib
from pathlib import Path

import pytest

import firmground

SOURCE = Path(firmground.__file__).parent
MODULES = [
    ".".join(("firmground", *path.relative_to(SOURCE).with_suffix("").parts))
    for path in sorted(SOURCE.rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0, f"see: python -m doctest on {name}"


def test_there_are_some():
    assert "firmground.rng" in MODULES
