"""Poisoning: attacks that change pairs of a training set, with `poison(pairs)`; the set stays lazy."""

from firmground.attacks.poisoning.badclip import BadCLIP
from firmground.attacks.poisoning.captions import DirtyCaption, LabelConsistent
from firmground.attacks.poisoning.manifests import MANIFEST, Manifest, find_manifest, read_manifest
from firmground.attacks.poisoning.poisoned import Poisoned, PoisonedPairs, pair_sha256

__all__ = [
    "MANIFEST",
    "POISONINGS",
    "BadCLIP",
    "DirtyCaption",
    "LabelConsistent",
    "Manifest",
    "Poisoned",
    "PoisonedPairs",
    "find_manifest",
    "pair_sha256",
    "read_manifest",
]

POISONINGS = (DirtyCaption, LabelConsistent, BadCLIP)
