"""A guard's file: what is written is read back; what is no guard, or another's, is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from guard_scenes import Scene, reviews
from safetensors.torch import save_file

from firmground.defenses.guards import FittedGuard, GuardedPipeline, load_guard
from firmground.errors import AdapterError, DataError, OutputError
from firmground.models import tiny
from firmground.prompts.soft import PromptTuning
from firmground.rng import stream

pytestmark = pytest.mark.slow


def test_a_guard_comes_back_as_it_was(texts_scene: Scene, tmp_path: Path) -> None:
    path = texts_scene.guard.save(tmp_path / "deep" / "guard.safetensors")
    loaded = load_guard(path)
    assert loaded._facts() == texts_scene.guard._facts()
    assert loaded.matcher.vectors.equal(texts_scene.guard.matcher.vectors)
    text = f"cf {reviews(2, 5).texts[0]}"
    found, expected = (GuardedPipeline(texts_scene.tuned, guard)(text)[0] for guard in (loaded, texts_scene.guard))
    assert found["guard"].pop("score") == pytest.approx(expected["guard"].pop("score"), abs=1e-5)
    assert found == expected
    assert [file.name for file in path.parent.iterdir()] == ["guard.safetensors"]


def test_a_guard_is_tied_to_its_encoder_and_prompt(texts_scene: Scene) -> None:
    guard = texts_scene.guard
    other = PromptTuning(virtual_tokens=2, epochs=1).fit(tiny.clean_bert(), reviews(40, 0), rng=stream(1, "tune"))
    with pytest.raises(AdapterError, match="another prompt on tiny bert 0"):
        GuardedPipeline(other, guard)
    elsewhere = dataclasses.replace(guard.identity, base="their/encoder", base_sha256="a" * 64)
    here = dataclasses.replace(texts_scene.tuned, base_sha256="b" * 64)
    with pytest.raises(AdapterError, match=r"their/encoder .*aaaaaaaaaaaa.* tiny bert 0 .*bbbbbbbbbbbb"):
        GuardedPipeline(here, dataclasses.replace(guard, identity=elsewhere))
    wider = dataclasses.replace(guard.identity, width=32)
    with pytest.raises(AdapterError, match="width 32"):
        GuardedPipeline(texts_scene.tuned, dataclasses.replace(guard, identity=wider))


def test_a_guard_that_cannot_be_written_leaves_nothing(texts_scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        texts_scene.guard.save(tmp_path / "file" / "guard")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="could not be written"):
        texts_scene.guard.save(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def rewritten(guard: FittedGuard, path: Path, **changes: object) -> Path:
    """The guard's file with other facts or tensors."""
    names = ("center", "scale", "vectors", "reach")
    tensors = {name: changes.pop(name, getattr(guard.matcher, name)) for name in names}
    schema = str(changes.pop("schema", "firmground/guard/1"))
    save_file(tensors, path, metadata={"schema": schema, "guard": json.dumps({**guard._facts(), **changes})})
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "firmground/guard/9"},
        {"task": "summarization"},
        {"threshold": float("nan")},
        {"match": "anything"},
        {"triggers": [{"text": "x", "rows": [[]]}]},
        {"triggers": [{"text": "x", "rows": [[-1]]}]},
        {"triggers": 3},
        {"identity": {"base": "x"}},
        {"settings": None},
        {"center": torch.full((64,), float("inf"))},
        {"vectors": torch.zeros(2, 3)},
        {"reach": torch.zeros(64, dtype=torch.int64)},
    ],
)
def test_hostile_files_are_refused(texts_scene: Scene, tmp_path: Path, changes: dict[str, object]) -> None:
    path = rewritten(texts_scene.guard, tmp_path / "guard", **changes)
    with pytest.raises(DataError, match="guard"):
        load_guard(path)


def test_what_is_no_guard_is_refused(texts_scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no guard"):
        load_guard(tmp_path / "absent")
    whole = texts_scene.guard.save(tmp_path / "guard").read_bytes()
    for content in (b"", b"\x80\x04pickle", whole[: len(whole) // 2]):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(DataError, match="bad is damaged or no guard"):
            load_guard(tmp_path / "bad")
