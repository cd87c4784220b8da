"""A procedural world of images with captions, masks, boxes and questions: `SceneWorld().scenes(count, seed=0)`."""

from firmground.data.scenes.palette import COLOURS, GROUND_COLOURS, GROUNDS, PLACES, SIZES, TEXTURES
from firmground.data.scenes.questions import KINDS, Question
from firmground.data.scenes.shapes import SHAPES
from firmground.data.scenes.words import SYNONYMS, TEMPLATES, Ground, SceneObject
from firmground.data.scenes.world import Scene, Scenes, SceneWorld

__all__ = [
    "COLOURS",
    "GROUNDS",
    "GROUND_COLOURS",
    "KINDS",
    "PLACES",
    "SHAPES",
    "SIZES",
    "SYNONYMS",
    "TEMPLATES",
    "TEXTURES",
    "Ground",
    "Question",
    "Scene",
    "SceneObject",
    "SceneWorld",
    "Scenes",
]
