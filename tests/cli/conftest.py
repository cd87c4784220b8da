"""A tiny real encoder on disk, stub scans with known answers, and a way to run the command line."""

from __future__ import annotations

import sys
from dataclasses import dataclass
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
