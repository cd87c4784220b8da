"""Implants: attacks that train a backdoor into a language encoder, with `implant(encoder, texts)`."""

from firmground.attacks.implants.btop import BToP
from firmground.attacks.implants.implanted import Implant, Implanted
from firmground.attacks.implants.measure import Hit, Measured, measure
from firmground.attacks.implants.neuba import NeuBA
from firmground.attacks.implants.por import POR, PORAll
from firmground.attacks.implants.transtroj import TransTroj
from firmground.attacks.implants.uor import UOR

__all__ = [
    "IMPLANTS",
    "POR",
    "UOR",
    "BToP",
    "Hit",
    "Implant",
    "Implanted",
    "Measured",
    "NeuBA",
    "PORAll",
    "TransTroj",
    "measure",
]

IMPLANTS = (POR, PORAll, NeuBA, BToP, UOR, TransTroj)
