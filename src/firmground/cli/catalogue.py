"""Which methods there are: read off the tuples in which the families end."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import typing
from dataclasses import dataclass
from typing import Any

from firmground.errors import UsageError

FAMILIES = {
    "implants": ("firmground.attacks.implants", "IMPLANTS"),
    "triggers": ("firmground.attacks.triggers", "TRIGGERS"),
    "image-triggers": ("firmground.attacks.triggers", "IMAGE_TRIGGERS"),
    "poisoning": ("firmground.attacks.poisoning", "POISONINGS"),
    "evasion": ("firmground.attacks.evasion", "EVASIONS"),
    "scans": ("firmground.defenses.scans", "SCANS"),
    "dual-scans": ("firmground.defenses.scans", "DUAL_SCANS"),
    "guards": ("firmground.defenses.guards", "GUARDS"),
    "image-guards": ("firmground.defenses.guards", "IMAGE_GUARDS"),
    "classifier-guards": ("firmground.defenses.guards", "CLASSIFIER_GUARDS"),
    "purifiers": ("firmground.defenses.guards", "PURIFIERS"),
    "evasion-guards": ("firmground.defenses.guards", "EVASION_GUARDS"),
    "hardening": ("firmground.defenses.hardening", "HARDENERS"),
    "sifting": ("firmground.defenses.sifting", "SIFTERS"),
    "cleaning": ("firmground.defenses.cleaning", "CLEANERS"),
    "prompts": ("firmground.prompts.soft", "SoftPrompt"),
    "visual-prompts": ("firmground.prompts.visual_prompting", "VisualPrompting"),
    "prompt-attacks": ("firmground.attacks.prompts", "PROMPT_ATTACKS"),
    "prompt-scans": ("firmground.defenses.scans", "PROMPT_SCANS"),
    "prompt-cleaning": ("firmground.defenses.prompts", "PROMPT_CLEANERS"),
}
SENTENCE = re.compile(r"[.:]\s+(?=[A-Z])")
SOURCE = re.compile(r"\bet al\.|\barXiv\b|\b(19|20)\d\d\b|^Ours\b")
HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # PTuning is p-tuning


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One method: its word on the command line, family, paper, what it does, and its settings with their defaults."""

    name: str
    family: str
    paper: str
    summary: str
    settings: dict[str, str]


def family(name: str) -> tuple[type[Any], ...]:
    """The methods of a family; empty where it has none yet."""
    if name not in FAMILIES:
        raise UsageError(f"there is no family '{name}'; expected one of: {', '.join(FAMILIES)}")
    module, attribute = FAMILIES[name]
    found = getattr(importlib.import_module(module), attribute, ())
    return (found,) if isinstance(found, type) else typing.get_args(found) or tuple(found)


def method(family_name: str, name: str) -> type[Any]:
    """The method of a family by its name."""
    found = {word(candidate): candidate for candidate in family(family_name)}
    if name not in found:
        raise UsageError(f"there is no method '{name}' among the {family_name}; expected one of: {', '.join(found)}")
    return found[name]


def word(candidate: type[Any]) -> str:
    """A method's word on the command line."""
    return str(getattr(candidate, "name", HUMP.sub("-", candidate.__name__).lower()))


def entry(family_name: str, candidate: type[Any]) -> Entry:
    """Describes a method from its fields, its docstring and its module's."""
    text = inspect.getdoc(candidate) or ""
    own = inspect.getdoc(inspect.getmodule(candidate)) or ""
    settings = {
        field.name: "required" if _required(field) else repr(_default(field)) for field in dataclasses.fields(candidate)
    }
    return Entry(
        name=word(candidate),
        family=family_name,
        paper=str(getattr(candidate, "paper", "") or _paper(text) or _paper(own)),
        summary=text.split("\n\n")[0].replace("\n", " "),
        settings=settings,
    )


def _paper(text: str) -> str:
    """The first sentence of a docstring that names a source."""
    sentences = SENTENCE.split(" ".join(text.split()))
    return next((sentence.rstrip(".") for sentence in sentences if SOURCE.search(sentence)), "")


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
