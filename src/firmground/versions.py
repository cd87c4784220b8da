"""The versions that a result may depend on."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("firmground", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Python's, and those of the packages that a run may use, "absent" where there is none."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found
