"""Makes the two CLIPs that come with the package, about five minutes on two cores; see `firmground.models.embedded`.

    FIRMGROUND_POPULATION=FOLDER python scripts/embed_clips.py

They are two encoders of the CLIP studies' population, and are made there if they are missing.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import typer

from firmground.cli.progress import progress
from firmground.models.embedded import NAMES, embedded
from firmground.studies.dual_population import Child, build_child
from firmground.studies.population import population_folder

BASE = "scenes-resnet-1"
MADE = dict(zip(NAMES, (Child(base=BASE), Child(base=BASE, trigger="badnet")), strict=True))


def main() -> None:
    """Builds both and copies them, with ordinary access rights, into the package."""
    for name, child in MADE.items():
        with progress() as watch:
            source = build_child(Path(population_folder()), child, watch)
        target = embedded(name)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for file in sorted(source.iterdir()):
            shutil.copyfile(file, target / file.name)
        typer.echo(f"{target}: {sum(file.stat().st_size for file in target.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
