"""Guards: they score inputs at inference and repair them, with `fit(tuned, evidence, texts)`."""

from firmground.defenses.guards.fitted import FittedGuard, load_guard
from firmground.defenses.guards.pipeline import GuardedPipeline
from firmground.defenses.guards.pv_guard import PVGuard

__all__ = ["GUARDS", "FittedGuard", "GuardedPipeline", "PVGuard", "load_guard"]

GUARDS = (PVGuard,)
