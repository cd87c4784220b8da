"""Evasions: perturbations of images, `perturb(encoder, images)`, made on an encoder alone: no label, no task head."""

from firmground.attacks.evasion.dr import DR
from firmground.attacks.evasion.nrd import NRD
from firmground.attacks.evasion.perturbed import Perturbed
from firmground.attacks.evasion.pgd import PGD
from firmground.attacks.evasion.prm import PRM

__all__ = ["DR", "EVASIONS", "NRD", "PGD", "PRM", "Perturbed"]

EVASIONS = (PRM, PGD, NRD, DR)
