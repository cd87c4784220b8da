"""Runs every check of this repository: format, lint, layers, types, and the tests.

The tests include doctests, those that train or walk a whole path, as the examples and the commands in the docs do
(marked `slow`), and those on real models and data (marked `real`). They come last, so that pytest's own closing line
ends the output; what failed before them is said before them.

    python scripts/check.py          everything, as CI does
    python scripts/check.py --fast   without types, and of the tests only the unit tier: neither `slow` nor `real`
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CODE = ("src", "tests", "examples", "scripts")
CHECKS = {
    "format": ("ruff", "format", "--check", *CODE),
    "lint": ("ruff", "check", *CODE),
    "layers": ("lint-imports",),
    "types": ("mypy",),
}
SLOW = ("types",)
TESTS = (sys.executable, "-m", "pytest")
UNIT = "not real and not slow"


def main() -> int:
    """Returns 0 where everything passes, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="leave out types and the tests marked `slow` or `real`")
    fast = parser.parse_args().fast
    chosen = {name: command for name, command in CHECKS.items() if not (fast and name in SLOW)}
    failed = [name for name, (tool, *words) in chosen.items() if not passes(name, [str(BIN / tool), *words])]
    say(f"== failed before the tests: {', '.join(failed)}" if failed else "== all passed before the tests")
    say("== tests")
    tests = [*TESTS, "-m", UNIT] if fast else [*TESTS]
    return int(bool(run(tests) or failed))


def passes(name: str, command: list[str]) -> bool:
    """Runs one check and says how it went."""
    say(f"== {name}")
    started = time.monotonic()
    code = run(command)
    say(f"== {name}: {'failed' if code else 'passed'} ({time.monotonic() - started:.0f} s)")
    return code == 0


def run(command: list[str]) -> int:
    """The exit code of a command in the repository's root, on one thread: tests count on it bit for bit."""
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode


def say(line: str) -> None:
    """A line at once, in order with what the checks print."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
