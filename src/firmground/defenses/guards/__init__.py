"""Guards: they score inputs at inference and repair them.

For texts with `fit(tuned, evidence, texts)`, for a dual encoder's images with `fit(encoder, images)`, for those of an
image classifier, prompted or not, with `fit(classifier, images)`.
"""

from firmground.defenses.guards.base_disagreement import BaseDisagreement
from firmground.defenses.guards.bdetclip import BDetCLIP
from firmground.defenses.guards.classifier_files import CLASSIFIER_GUARDS, load_classifier_guard
from firmground.defenses.guards.classifier_pipeline import GuardedClassifierPipeline
from firmground.defenses.guards.displacement import Displacement
from firmground.defenses.guards.double_masking import DoubleMasking
from firmground.defenses.guards.fitted import FittedGuard, load_guard
from firmground.defenses.guards.fitted_classifiers import FittedClassifierGuard
from firmground.defenses.guards.fitted_images import FittedImageGuard
from firmground.defenses.guards.image_files import load_image_guard
from firmground.defenses.guards.image_pipeline import GuardedImagePipeline
from firmground.defenses.guards.mahalanobis import Mahalanobis
from firmground.defenses.guards.neighbour_disagreement import NeighbourDisagreement
from firmground.defenses.guards.part_swap import PartSwap
from firmground.defenses.guards.patch_instability import PatchInstability
from firmground.defenses.guards.pipeline import GuardedPipeline
from firmground.defenses.guards.purification import Purification
from firmground.defenses.guards.purifiers import BitDepth, Jpeg, RandomResizing, Resizing
from firmground.defenses.guards.pv_guard import PVGuard
from firmground.defenses.guards.sentinet import SentiNet
from firmground.defenses.guards.strip import Strip

__all__ = [
    "CLASSIFIER_GUARDS",
    "EVASION_GUARDS",
    "GUARDS",
    "IMAGE_GUARDS",
    "PURIFIERS",
    "BDetCLIP",
    "BaseDisagreement",
    "BitDepth",
    "Displacement",
    "DoubleMasking",
    "FittedClassifierGuard",
    "FittedGuard",
    "FittedImageGuard",
    "GuardedClassifierPipeline",
    "GuardedImagePipeline",
    "GuardedPipeline",
    "Jpeg",
    "Mahalanobis",
    "NeighbourDisagreement",
    "PVGuard",
    "PartSwap",
    "PatchInstability",
    "Purification",
    "RandomResizing",
    "Resizing",
    "SentiNet",
    "Strip",
    "load_classifier_guard",
    "load_guard",
    "load_image_guard",
]

GUARDS = (PVGuard,)
IMAGE_GUARDS = (BDetCLIP, Displacement, Mahalanobis, NeighbourDisagreement)
EVASION_GUARDS = (PatchInstability,)
PURIFIERS = (Jpeg, BitDepth, Resizing, RandomResizing)
