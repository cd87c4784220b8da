from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
import torch

from firmground.data.sentences import neutral_sentences
from firmground.models.language import LanguageEncoder
from firmground.models.saving import save_encoder
from firmground.rng import stream
from firmground.studies import population
from firmground.studies.distillation import Distil, agreement, embed
from firmground.studies.families import Shape, make_encoder, train_tokenizer
from firmground.studies.population import MEMBERS, STUDENTS, Member, build, manifests, place

if TYPE_CHECKING:
    from pathlib import Path


TEXTS = neutral_sentences(160, rng=stream(0, "population tests"))
FAMILIES = sorted({member.shape.family for member in STUDENTS if member.shape})


def small(family: str, *, seed: int = 0) -> LanguageEncoder:
    shape = Shape(family=family, width=64, layers=1, vocabulary=400)
    return make_encoder(shape, train_tokenizer(family, 400, TEXTS), seed=seed)


def test_the_population_is_large_enough_and_its_halves_share_no_base() -> None:
    assert len({member.name for member in MEMBERS}) == len(MEMBERS) >= 56
    assert min(Counter(member.split for member in MEMBERS).values()) >= 28
    split = {member.name: member.split for member in MEMBERS}
    shared = [m for m in MEMBERS if m.parent and split[m.parent] != m.split]
    assert {member.parent for member in shared} == {"minilm-l6"}
    assert len(FAMILIES) == 9


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_built_trained_and_loaded(family: str, tmp_path: Path) -> None:
    encoder = small(family)
    before = embed(encoder, TEXTS[:4])[0]
    targets = torch.nn.functional.normalize(torch.randn(160, 8, generator=stream(0, "targets")), dim=-1)
    Distil(steps=2, batch_size=8).train(encoder, TEXTS, targets, seed=0)
    cls, mean = embed(encoder, TEXTS[:4])
    assert not torch.allclose(before, cls, atol=1e-3)
    save_encoder(encoder.model, encoder.tokenizer, tmp_path / family, card="# Clean\n")
    again = LanguageEncoder.load(tmp_path / family)
    assert again.family == family
    assert again.mask_id is not None
    torch.testing.assert_close(embed(again, TEXTS[:4]), (cls, mean))


def test_first_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = small("bert", seed=1), small("bert", seed=1), small("bert", seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.token_embeddings, same.token_embeddings)
    assert not torch.equal(one.token_embeddings, other.token_embeddings)


@pytest.mark.slow
def test_a_student_learns_its_teacher() -> None:
    teacher, student = small("bert", seed=3), small("bert", seed=4)
    targets = torch.nn.functional.normalize(embed(teacher, TEXTS)[1] - embed(teacher, TEXTS)[1].mean(0), dim=-1)
    losses: list[float] = []

    def watch(step: int, total: int, stage: str, **scalars: float) -> None:
        losses.append(scalars["loss"])

    # tokenizers break ties by chance as they train, so that one run differs from the next: far from the bound
    Distil(steps=60, batch_size=32, mlm_weight=0.0).train(student, TEXTS, targets, seed=0, watch=watch)
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])


def test_agreement_sees_geometry_and_nothing_else() -> None:
    rng = stream(0, "agreement")
    states = torch.randn(60, 12, generator=rng)
    turned = states @ torch.linalg.qr(torch.randn(12, 12, generator=rng)).Q
    assert agreement(7 * turned + 3, states) == pytest.approx(1, abs=1e-5)
    assert abs(agreement(torch.randn(60, 12, generator=rng), states)) < 0.15


def test_building_again_makes_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [Member(name="bert-w128-l3", split="calibration"), Member(name="minilm-l6", split="report")]
    made: list[str] = []

    def make(member: Member, *rest: object) -> LanguageEncoder:
        made.append(member.name)
        if len(made) == 2:
            raise KeyboardInterrupt
        return small("bert")

    def targets(folder: Path, texts: object) -> torch.Tensor:
        return torch.randn(160, 8, generator=stream(0, "targets"))

    monkeypatch.setattr(population, "make", make)
    monkeypatch.setattr(population, "teacher_targets", targets)
    monkeypatch.setattr(population, "study_texts", lambda max_words: TEXTS)
    monkeypatch.setattr(population, "HELD_OUT", 16)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, members=members)
    assert [m["name"] for m in manifests(tmp_path)] == ["bert-w128-l3"]
    build(tmp_path, members=members)
    assert made == ["bert-w128-l3", "minilm-l6", "minilm-l6"]
    assert LanguageEncoder.load(place(tmp_path, "minilm-l6")).width == 64
    assert not list((tmp_path / "clean").glob("*.part"))
