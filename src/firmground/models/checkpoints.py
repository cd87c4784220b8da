"""Checkpoints of a training run: written to a temporary name and renamed, so that a kill leaves none half-written.

A folder `step-00000100` holds `state.safetensors` (weights, buffers and the optimizer's state) and `state.json` (the
step, the run's seed, its last losses, and what the run was). Nothing is pickled. A run needs no more randomness than
its seed: every epoch's order and every step's draws are streams of it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from firmground.drafts import drafted
from firmground.errors import BrokenModelError, OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TENSORS, STATE = "state.safetensors", "state.json"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come: steps done, its seed, and the losses of its last steps."""

    step: int
    seed: int
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one run in `folder`; `run` says what it is, so that no other run takes them for its own."""

    folder: Path
    run: Mapping[str, str | int]

    def save(self, progress: Progress, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Path:
        """Writes a checkpoint and removes older ones. Raises `OutputError`; the older ones then stay."""
        target = self.folder / f"step-{progress.step:08d}"
        state = {"step": progress.step, "seed": progress.seed, "history": progress.history, "run": dict(self.run)}
        try:
            with drafted(target) as draft:
                save_file(tensors_of(module, optimizer), draft / TENSORS)
                (draft / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
                shutil.rmtree(target, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"the training cannot be saved to {self.folder} ({error}); free space, then run the same again"
            ) from error
        for other in [*self.folder.glob("step-*"), *self.folder.glob(".step-*")]:
            if other != target:
                shutil.rmtree(other, ignore_errors=True)
        return target

    def restore(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
        """Puts the latest checkpoint into module and optimizer; None where there is none yet.

        Raises `BrokenModelError` where it cannot be read, or belongs to another run or architecture.
        """
        found = sorted(self.folder.glob("step-*"))
        if not found:
            return None
        try:
            state = json.loads((found[-1] / STATE).read_text(encoding="utf-8"))
            progress = Progress(step=int(state["step"]), seed=int(state["seed"]), history=list(state["history"]))
            run = dict(state["run"])
            tensors = load_file(found[-1] / TENSORS)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise BrokenModelError(f"{found[-1]} cannot be read ({error}); remove it and start again") from error
        self._check(found[-1], run)
        self._put(found[-1], tensors, module, optimizer)
        return progress

    def _check(self, path: Path, run: dict[str, Any]) -> None:
        for name in self.run:
            if run.get(name) != self.run[name]:
                raise BrokenModelError(
                    f"{path} is a checkpoint of another run: its {name} is {run.get(name)!r}, this run's "
                    f"{self.run[name]!r}; choose another folder, or repeat the first run's settings"
                )

    def _put(
        self, path: Path, tensors: dict[str, torch.Tensor], module: torch.nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        own = module.state_dict()
        stored = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        unlike = sorted({*own} ^ {*stored}) or [name for name in own if own[name].shape != stored[name].shape]
        if unlike:
            raise BrokenModelError(
                f"{path} is a checkpoint of another architecture: {unlike[0]} and {len(unlike) - 1} more tensors "
                f"differ from this encoder's; resume with the encoder that the run began with, or choose another folder"
            )
        module.load_state_dict(stored)
        held: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".", 2)
                held.setdefault(int(number), {})[key] = value
        optimizer.load_state_dict({"state": held, "param_groups": optimizer.state_dict()["param_groups"]})


def tensors_of(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Copies of all that a run changes, by name."""
    found = {f"model.{name}": value for name, value in module.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{number}.{key}": value for key, value in state.items()}
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in found.items()}
