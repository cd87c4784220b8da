"""What every method of every family promises by its form."""

import dataclasses
import inspect
import json
import typing

import pytest

from firmground.attacks import triggers
from firmground.attacks.evasion import EVASIONS
from firmground.attacks.implants import IMPLANTS
from firmground.attacks.poisoning import POISONINGS
from firmground.attacks.prompts import PROMPT_ATTACKS
from firmground.attacks.triggers import IMAGE_TRIGGERS, TRIGGERS
from firmground.cli import catalogue, poisoning
from firmground.defenses.cleaning import CLEANERS
from firmground.defenses.guards import CLASSIFIER_GUARDS, EVASION_GUARDS, GUARDS, IMAGE_GUARDS, PURIFIERS
from firmground.defenses.hardening import HARDENERS
from firmground.defenses.prompts import PROMPT_CLEANERS
from firmground.defenses.scans import DUAL_SCANS, PROMPT_SCANS, SCANS
from firmground.defenses.sifting import SIFTERS
from firmground.prompts.soft import SoftPrompt
from firmground.prompts.visual_prompting import VisualPrompting

from . import cases

FAMILIES = {
    "scans": (SCANS, tuple(case.method for case in cases.SCANS), "scan"),
    "implants": (IMPLANTS, cases.IMPLANTS, "implant"),
    "triggers": (TRIGGERS, cases.TRIGGERS, "insert"),
    "image-triggers": (IMAGE_TRIGGERS, cases.IMAGE_TRIGGERS, "stamp"),
    "poisoning": (POISONINGS, cases.POISONINGS, "poison"),
    "prompts": (typing.get_args(SoftPrompt), cases.PROMPTS, "fit"),
    "visual-prompts": ((VisualPrompting,), cases.VISUAL_PROMPTS, "fit"),
    "prompt-attacks": (PROMPT_ATTACKS, cases.PROMPT_ATTACKS, "implant"),
    "prompt-scans": (PROMPT_SCANS, cases.PROMPT_SCANS, "scan"),
    "prompt-cleaning": (PROMPT_CLEANERS, cases.PROMPT_CLEANERS, "clean"),
    "dual-scans": (DUAL_SCANS, cases.DUAL_SCANS, "scan"),
    "guards": (GUARDS, cases.GUARDS, "fit"),
    "image-guards": (IMAGE_GUARDS, cases.IMAGE_GUARDS, "fit"),
    "classifier-guards": (CLASSIFIER_GUARDS, cases.CLASSIFIER_GUARDS, "fit"),
    "cleaning": (CLEANERS, cases.CLEANERS, "clean"),
    "evasion": (EVASIONS, cases.EVASIONS, "perturb"),
    "purifiers": (PURIFIERS, cases.PURIFIERS, "purge"),
    "evasion-guards": (EVASION_GUARDS, cases.EVASION_GUARDS, "fit"),
    "hardening": (HARDENERS, cases.HARDENERS, "harden"),
    "sifting": (SIFTERS, cases.SIFTERS, "sift"),
}
METHODS = [
    pytest.param(family, method, verb, id=f"{family}-{type(method).__name__}")
    for family, (_, methods, verb) in FAMILIES.items()
    for method in dict.fromkeys(methods)
]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_exported_method_has_a_case(family):
    exported, methods, _ = FAMILIES[family]
    without = {method.__name__ for method in exported} - {type(method).__name__ for method in methods}
    assert not without, f"add a case for {', '.join(sorted(without))} to tests/conformance/cases.py"


def test_every_family_of_the_command_line_is_checked():
    assert set(catalogue.FAMILIES) == set(FAMILIES)


@pytest.mark.parametrize(("family", "method", "verb"), METHODS)
class TestMethod:
    def test_is_a_frozen_keyword_only_dataclass(self, family, method, verb):
        assert dataclasses.is_dataclass(method)
        assert type(method).__dataclass_params__.frozen
        assert all(field.kw_only for field in dataclasses.fields(method))
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, dataclasses.fields(method)[0].name, None)

    def test_repr_rebuilds_it(self, family, method, verb):
        names = vars(inspect.getmodule(type(method)))
        assert eval(repr(method), vars(triggers) | names) == method
        assert hash(method) == hash(dataclasses.replace(method))

    def test_settings_are_plain_json(self, family, method, verb):
        settings = json.loads(json.dumps(dataclasses.asdict(method)))
        lists = {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
        held = {name: getattr(method, name) for name, value in settings.items() if isinstance(value, dict)}
        assert all(dataclasses.is_dataclass(inner) for inner in held.values())  # a trigger, which is checked by itself
        assert type(method)(**settings | lists | held) == method

    def test_has_one_verb_that_takes_its_randomness(self, family, method, verb):
        parameters = inspect.signature(getattr(method, verb)).parameters
        assert parameters["rng"].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters["rng"].default is inspect.Parameter.empty, "without a generator nothing could be repeated"
        if verb not in ("insert", "stamp"):
            assert parameters["watch"].kind is inspect.Parameter.KEYWORD_ONLY

    def test_has_a_name_a_source_and_a_summary(self, family, method, verb):
        entry = catalogue.entry(family, type(method))
        assert entry.name == entry.name.lower()
        assert entry.summary
        if family != "triggers":
            assert entry.paper, f"{entry.name} does not say where it comes from"
        if family not in ("triggers", "image-triggers", "implants", "poisoning", "prompts"):
            assert typing.get_type_hints(type(method))["name"] == typing.ClassVar[str]
            assert typing.get_type_hints(type(method))["paper"] == typing.ClassVar[str]

    def test_can_be_set_on_the_command_line(self, family, method, verb):
        from firmground.cli.settings import build

        if family == "poisoning":  # target, amount and trigger have options of their own
            trigger = "badnet" if hasattr(method, "trigger") else None
            amount = {"target": "red", "count": 1, "rate": None}
            assert type(poisoning.build_attack(method.name, trigger, (), amount)) is type(method)
            return
        required = [f"{name}=1" for name, default in catalogue.entry(family, type(method)).settings.items()
                    if default == "required"]  # fmt: skip
        (built,) = build([type(method)], required)
        assert type(built) is type(method)


def test_names_are_one_of_a_kind():
    for family, (exported, _, _) in FAMILIES.items():
        names = [catalogue.word(method) for method in exported]
        assert len(set(names)) == len(names), family
