"""Triggers for texts, `WordTrigger.insert(texts)`, and for images, `BadNet.stamp(images)` and its kin."""

from firmground.attacks.triggers.badnet import BadNet
from firmground.attacks.triggers.blended import Blended
from firmground.attacks.triggers.patch import Patch
from firmground.attacks.triggers.sig import SIG
from firmground.attacks.triggers.structured import BlendedStripes, Stripes, TextOverlay, Triangles
from firmground.attacks.triggers.wanet import WaNet
from firmground.attacks.triggers.words import DEFAULT_TRIGGERS, Tagged, WordTrigger, random_triggers

__all__ = [
    "DEFAULT_TRIGGERS",
    "IMAGE_TRIGGERS",
    "SIG",
    "TRIGGERS",
    "BadNet",
    "Blended",
    "BlendedStripes",
    "ImageTrigger",
    "Patch",
    "Stripes",
    "Tagged",
    "TextOverlay",
    "Triangles",
    "WaNet",
    "WordTrigger",
    "random_triggers",
]

TRIGGERS = (WordTrigger,)
IMAGE_TRIGGERS = (BadNet, Blended, WaNet, SIG, Stripes, BlendedStripes, Triangles, TextOverlay)
ImageTrigger = BadNet | Blended | WaNet | SIG | Stripes | BlendedStripes | Triangles | TextOverlay | Patch
