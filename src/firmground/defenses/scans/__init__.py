"""Scans: one method, one file; each judges an encoder or a prompt and returns a verdict."""

from firmground.defenses.scans.default import scan_language
from firmground.defenses.scans.phrase_search import PhraseSearch
from firmground.defenses.scans.pv_mining import PVMining
from firmground.defenses.scans.vocabulary_sweep import VocabularySweep

SCANS = (VocabularySweep, PhraseSearch, PVMining)

__all__ = ["SCANS", "PVMining", "PhraseSearch", "VocabularySweep", "scan_language"]
