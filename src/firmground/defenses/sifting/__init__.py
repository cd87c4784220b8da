"""Sifting: ranks the pairs of a set by suspicion, with `sift(encoder, pairs)`."""

from firmground.defenses.sifting.caption_similarity import CaptionSimilarity
from firmground.defenses.sifting.dao import DAO
from firmground.defenses.sifting.displacement import Displacement
from firmground.defenses.sifting.k_distance import KDistance
from firmground.defenses.sifting.slof import SLOF

SIFTERS = (DAO, SLOF, KDistance, CaptionSimilarity, Displacement)

__all__ = ["DAO", "SIFTERS", "SLOF", "CaptionSimilarity", "Displacement", "KDistance"]
