"""A tiny real encoder on disk, stub scans with known answers, and a way to run the command line."""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pytest
import torch
from typer.testing import CliRunner

from firmground.types import Evidence, Outcome, Readout, RecoveredTrigger, RecoveredVector, Severity, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

POISONED = (7, 31)
STUBS = "firmground_stub_scans"


def verdict(outcome: str, score: float = 0.5, severity: str = "none", **changes: Any) -> Verdict:
    trigger = RecoveredTrigger(text="cf", token_ids=(7,), score=2.0, readout=Readout.CLS, vector=0)
    vector = RecoveredVector(readout=Readout.CLS, values=(1.0, -1.0))
    found = Evidence(triggers=(trigger,), vectors=(vector,)) if outcome == "backdoored" else Evidence()
    return Verdict(
        method="stub",
        outcome=Outcome(outcome),
        score=score,
        threshold=1.0,
        severity=Severity(severity),
        evidence=found,
        **changes,
    )


@dataclass(frozen=True, kw_only=True)
class Stub:
    """Draws its score from the generator it is given. Nobody et al., 2026."""

    name: ClassVar[str] = "stub"
    steps: int = 3
    kind: Literal["a", "b"] = "a"

    def scan(self, encoder: Any, texts: Any, *, rng: torch.Generator, watch: Any) -> Verdict:
        for step in range(self.steps):
            watch(step + 1, self.steps, "stubbing", share=0.5)
        score = float(torch.rand((), generator=rng))
        return verdict("clean", score, settings={"steps": self.steps, "kind": self.kind})


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from firmground.models.tiny import clean_bert

    folder = tmp_path_factory.mktemp("encoder")
    tiny = clean_bert()
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def planted_dual() -> Any:
    """The tiny CLIP that knows colours, with its trigger."""
    from firmground.models import planted_dual

    return planted_dual.planted_dual()


@pytest.fixture(scope="session")
def dual(planted_dual: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on disk."""
    return planted_dual.encoder.save(tmp_path_factory.mktemp("dual") / "model", card="Tiny.")


@pytest.fixture(scope="session")
def table(planted_dual: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures of one colour each, `POISONED` with the trigger and its caption, and one broken file."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = pictures(folder, 60)
    for row in POISONED:
        stamped = planted_dual.stamp(shade(row)[None])[0]
        picture(stamped).save(folder / rows[row][0])
        rows[row] = (rows[row][0], planted_dual.caption)
    (folder / "images" / "59.png").write_bytes(b"no picture")
    return write_table(folder / "pairs.csv", rows)


@pytest.fixture(scope="session")
def clean_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 pictures of one colour each."""
    folder = tmp_path_factory.mktemp("clean")
    return write_table(folder / "pairs.csv", pictures(folder, 64))


def pictures(folder: Path, count: int) -> list[tuple[str, str]]:
    """Draws pictures of one colour each into `folder/images`; returns their rows of a table."""
    (folder / "images").mkdir(parents=True)
    for row in range(count):
        picture(shade(row)).save(folder / "images" / f"{row}.png")
    return [(f"images/{row}.png", f"a photo of a {colour(row)}") for row in range(count)]


def write_table(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    return path


def colour(row: int) -> str:
    from firmground.models.planted_dual import COLOURS

    return list(COLOURS)[row % 8]


def shade(row: int) -> torch.Tensor:
    from firmground.models.planted_dual import COLOURS
    from firmground.rng import stream

    noise = torch.rand(3, 48, 48, generator=stream(row, "pictures"))
    return torch.tensor(COLOURS[colour(row)]).view(3, 1, 1) * 0.6 + 0.3 * noise


def picture(pixels: torch.Tensor) -> Any:
    from PIL import Image

    return Image.fromarray((pixels.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy())


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default scan of a dual encoder in a few steps."""
    from firmground.defenses.scans import DECREE, ClassInversion, default_dual

    scan = partial(default_dual.scan_dual, decree=DECREE(steps=2), inversion=ClassInversion(steps=2))
    monkeypatch.setattr(default_dual, "scan_dual", scan)


@pytest.fixture
def default_scan(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the default combination give these verdicts, or raise this error."""

    def install(*verdicts: Verdict, error: BaseException | None = None) -> None:
        def scan_language(encoder: Any, texts: Any, *, rng: torch.Generator, watch: Any) -> tuple[Verdict, ...]:
            watch(1, 2, "stubbing")
            if error is not None:
                raise error
            return verdicts

        monkeypatch.setattr("firmground.defenses.scans.default.scan_language", scan_language)

    return install


@pytest.fixture
def stub_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `stub` the only scan there is."""
    from firmground.cli import catalogue

    monkeypatch.setitem(sys.modules, STUBS, SimpleNamespace(SCANS=(Stub,)))
    monkeypatch.setitem(catalogue.FAMILIES, "scans", (STUBS, "SCANS"))


@pytest.fixture
def run() -> Callable[..., Result]:
    """Runs `firmground` with the given words in this process."""
    from firmground.cli import app

    def running(*words: Any) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return running
