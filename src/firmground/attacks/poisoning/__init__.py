"""Poisoning: attacks that change pairs of a training set, with `poison(pairs)`; the set stays lazy."""

from firmground.attacks.poisoning.badclip import BadCLIP
from firmground.attacks.poisoning.captions import DirtyCaption, LabelConsistent
from firmground.attacks.poisoning.poisoned import Poisoned, PoisonedPairs, pair_sha256

__all__ = [
    "POISONINGS",
    "BadCLIP",
    "DirtyCaption",
    "LabelConsistent",
    "Poisoned",
    "PoisonedPairs",
    "pair_sha256",
]

POISONINGS = (DirtyCaption, LabelConsistent, BadCLIP)
