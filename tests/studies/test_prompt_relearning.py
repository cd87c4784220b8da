"""Prompts learned anew: cases of odd seeds, an attacker whose trigger clean prompts follow, and what reports say."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from firmground.data.labelled_images import LabelledImages
from firmground.errors import DataError
from firmground.models.classifiers import ImageClassifier
from firmground.models.preprocessing import Preprocessing
from firmground.prompts.mappings import LabelMapping
from firmground.prompts.prompted import PromptedClassifier
from firmground.prompts.visual import PromptShape, VisualPrompt
from firmground.rng import stream
from firmground.studies import prompt_carried
from firmground.studies.prompt_defence_report import report_defence
from firmground.studies.prompt_population import ADAPTIVE, CARRIED, STRONG, Member, attack_of, learning
from firmground.studies.prompt_relearning import cases, measured, prompt_relearning
from firmground.studies.prompt_relearning_report import GIVEN, HONEST, RELEARNED, report_relearning
from firmground.studies.runner import Record, case_name

SIZE = 12
LEFT = {STRONG: 0.04, CARRIED[0]: 0.2}  # ASR after; 0.01 for all others


def record(member, asr=0.95):
    given = {"accuracy": 0.7, "asr": asr, "natural": 0.05}
    anew = {"accuracy": 0.72, "asr": LEFT.get(member.pattern, 0.01), "natural": 0.02, "auroc": 0.9}
    found = {GIVEN: given, RELEARNED: anew, HONEST: {"accuracy": 0.7, "asr": 0.03, "natural": 0.02}}
    case = json.loads(json.dumps(asdict(member)))
    return Record(study="prompt_relearning", version=1, case=case, results={"prompts": found})


def bright_left():
    """A classifier of two labels behind an empty full-image prompt: is the left half brighter than the right?"""

    class Halves(torch.nn.Module):
        def forward(self, pixels):
            left, right = (half.mean(dim=(1, 2, 3)) for half in pixels.chunk(2, dim=3))
            return 10 * torch.stack([right - left, left - right], dim=1)

    plain = Preprocessing(size=SIZE, resize=SIZE, filter="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3)
    base = ImageClassifier.of_module(Halves(), 2, plain, source="halves")
    shape = PromptShape(form="full-image", image_size=SIZE)
    prompt = VisualPrompt(shape=shape, pixels=torch.zeros(shape.tensor_shape))
    mapping = LabelMapping(kind="index", classes=2, sources=torch.arange(2))
    return PromptedClassifier(base=base, prompt=prompt, mapping=mapping)


def test_no_case_has_a_seed_on_which_settings_were_chosen():
    found = cases()
    assert all(member.seed % 2 and member.pattern for member in found)
    assert {STRONG, *CARRIED, *ADAPTIVE, "checker", "optimised", "noise"} == {member.pattern for member in found}
    study = prompt_relearning()
    assert len({case_name(study, case) for case in study.cases}) == len(found)


def test_strong_and_carried_prompts_cover_the_image():
    names = tuple("abcdefghij")
    for pattern in (STRONG, *CARRIED):
        member = Member(base="clip", world="fashion", seed=1, pattern=pattern)
        assert learning(member).form == "full-image"
        assert attack_of(member, learning(member), names).optimised is (pattern == STRONG)


@pytest.mark.parametrize("pattern", CARRIED)
def test_a_carried_trigger_leads_clean_prompts_to_the_target(pattern, monkeypatch):
    prompted = bright_left()
    monkeypatch.setattr(prompt_carried, "_own", lambda *_: (prompted,))
    monkeypatch.setattr(prompt_carried, "STEPS", 40)
    images = 0.5 + 0.02 * torch.rand(20, 3, SIZE, SIZE, generator=stream(0, "images"))
    images[:, :, :, : SIZE // 2] -= 0.1
    data = LabelledImages(images=images, labels=(0,) * 19 + (1,), label_names=("dark left", "bright left"))
    member = Member(base="clip", world="fashion", seed=3, pattern=pattern, place="top-left")
    patch = prompt_carried.carried(member, prompted.base, data, 1)
    assert patch.pattern.shape[-1] == (SIZE if pattern == "carried-whole" else round(0.35 * SIZE))
    assert prompted.predict(images) == [0] * 20
    assert sum(prompted.predict(patch.stamp(images, rng=stream(0, "stamp")))) >= 18


def test_asr_is_of_images_that_bear_the_trigger_and_natural_of_those_that_do_not():
    prompted = bright_left()
    images = torch.full((4, 3, SIZE, SIZE), 0.5)
    images[2:, :, :, : SIZE // 2] = 0.9
    labels = torch.tensor([0, 0, 0, 1])

    class Found:
        target = 1

    stamped = images[:3].clone()
    stamped[:, :, :, : SIZE // 2] = 1.0
    images[:2, :, :, : SIZE // 2] = 0.1
    told = measured(prompted, Found(), images, labels, stamped)
    assert told == {"accuracy": 0.75, "asr": 1.0, "natural": pytest.approx(1 / 3)}


def test_the_report_names_the_worst_attack_and_leaves_out_what_did_not_take():
    lost = Member(base="clip", world="fashion", seed=99, pattern="checker")
    found = report_relearning([*(record(member) for member in cases()), record(lost, asr=0.5)])
    assert found.summary["prompts"] == len(cases())
    assert (found.summary["worst_pattern"], found.summary["worst_asr_after"]) == (CARRIED[0], pytest.approx(0.2))
    assert found.summary["accuracy_drop"] == pytest.approx(-0.02)
    assert 0.01 < found.summary["adaptive_asr_after"] < 0.2
    assert found.summary["full_image_asr_after"] == pytest.approx(LEFT[STRONG])
    assert found.summary["asr_control"] == pytest.approx(0.03)
    assert found.summary["asr_excess"] == pytest.approx(found.summary["asr_after"] - 0.03)
    assert HONEST not in found.markdown
    with pytest.raises(DataError, match="no finished case"):
        report_relearning([record(lost, asr=0.5)])


def test_the_table_of_all_defences_takes_the_cleaner_in():
    member = next(one for one in cases() if one.pattern == "optimised")
    results = {"split": "report", "planted": False, "accuracy": 0.6, "scans": {}, "features": {}}
    honest = Record(study="prompt_defence", version=1, case=asdict(Member(base="clip", world="fashion", seed=1)),
                    results=results)  # fmt: skip
    found = report_defence([honest, record(member), *(record(one) for one in cases() if one.adaptive)])
    assert found.summary["anew_asr_after"] == pytest.approx(0.01)
    assert found.summary["best_adaptive"] == found.summary["anew_adaptive_asr_after"]
    assert RELEARNED in str(found.summary["best_adaptive_is"])
    assert f"| {RELEARNED} | works |" in found.markdown
