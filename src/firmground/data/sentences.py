"""Neutral English sentences, made on the spot, for scans that need clean text and are given none.

Every sentence is drawn from a small grammar, so that no corpus has to be shipped or downloaded; subjects, actions,
places and times vary independently, which is what a scan needs: outputs that differ because the texts differ.
"""

import torch

_SUBJECTS = (
    "The old teacher", "My younger sister", "A group of tourists", "Our new neighbour", "The city council",
    "Nobody in the village", "The tired driver", "Every student", "Her first manager", "The small company",
    "A famous singer", "The doctor on duty", "His grandmother", "The football team", "An honest lawyer",
    "The chief engineer", "Most of the visitors", "The quiet librarian", "A local farmer", "The young painter",
)  # fmt: skip
_ACTIONS = (
    "bought a cheap bicycle", "wrote a long letter", "lost the keys", "watched the storm", "repaired the roof",
    "cooked dinner for twelve", "cancelled the meeting", "found some rare coins", "complained about the noise",
    "won the final game", "planted apple trees", "read the annual report", "missed the last train",
    "sold the house", "painted the wooden fence", "learned to swim", "carried the heavy boxes",
    "discussed the new law", "recorded a live album", "closed the bank account",
)  # fmt: skip
_PLACES = (
    "near the river", "in the old harbour", "at the station", "behind the school", "in a crowded market",
    "on the third floor", "outside the theatre", "in the mountains", "by the lake", "at the airport",
    "in a foreign country", "under the bridge", "next to the church", "in the kitchen", "on the beach",
)  # fmt: skip
_TIMES = (
    "yesterday", "before lunch", "last winter", "every Monday", "during the holidays", "two years ago",
    "in the evening", "without any warning", "for the first time", "after the rain", "as usual", "quite by accident",
)  # fmt: skip


def neutral_sentences(count: int, *, rng: torch.Generator) -> list[str]:
    """Returns `count` sentences of 8 to 16 words; repeats are unlikely below a thousand (72,000 exist)."""
    parts = (_SUBJECTS, _ACTIONS, _PLACES, _TIMES)
    drawn = [torch.randint(len(part), (count,), generator=rng).tolist() for part in parts]
    return [" ".join(part[i] for part, i in zip(parts, row, strict=True)) + "." for row in zip(*drawn, strict=True)]
