"""Guards: they score inputs at inference and repair them.

For texts with `fit(tuned, evidence, texts)`, for a dual encoder's images with `fit(encoder, images)`.
"""

from firmground.defenses.guards.bdetclip import BDetCLIP
from firmground.defenses.guards.displacement import Displacement
from firmground.defenses.guards.fitted import FittedGuard, load_guard
from firmground.defenses.guards.fitted_images import FittedImageGuard
from firmground.defenses.guards.image_files import load_image_guard
from firmground.defenses.guards.image_pipeline import GuardedImagePipeline
from firmground.defenses.guards.neighbour_disagreement import NeighbourDisagreement
from firmground.defenses.guards.pipeline import GuardedPipeline
from firmground.defenses.guards.pv_guard import PVGuard

__all__ = [
    "GUARDS",
    "IMAGE_GUARDS",
    "BDetCLIP",
    "Displacement",
    "FittedGuard",
    "FittedImageGuard",
    "GuardedImagePipeline",
    "GuardedPipeline",
    "NeighbourDisagreement",
    "PVGuard",
    "load_guard",
    "load_image_guard",
]

GUARDS = (PVGuard,)
IMAGE_GUARDS = (BDetCLIP, Displacement, NeighbourDisagreement)
