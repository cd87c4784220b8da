"""Triggers for texts: `WordTrigger.insert(texts)`."""

from firmground.attacks.triggers.words import DEFAULT_TRIGGERS, Tagged, WordTrigger, random_triggers

__all__ = ["DEFAULT_TRIGGERS", "TRIGGERS", "Tagged", "WordTrigger", "random_triggers"]

TRIGGERS = (WordTrigger,)
