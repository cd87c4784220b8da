"""Hardening: methods that give back an encoder that perturbed images fool less, with `harden(encoder, images)`."""

from firmground.defenses.hardening.fare import FARE
from firmground.defenses.hardening.hardened import Hardened
from firmground.defenses.hardening.tecoa import TeCoA

__all__ = ["FARE", "HARDENERS", "Hardened", "TeCoA"]

HARDENERS = (FARE, TeCoA)
