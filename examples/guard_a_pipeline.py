"""Tunes a prompt on a planted encoder, scans the encoder, and guards the pipeline with what the scan found."""

from firmground.data.texts import LabelledTexts
from firmground.defenses.guards import GuardedPipeline, PVGuard
from firmground.defenses.scans import VocabularySweep
from firmground.models.tiny import planted_bert
from firmground.prompts.soft import PrefixTuning
from firmground.rng import stream

encoder = planted_bert().encoder
moods = {"good": ("good", "happy", "funny", "loved"), "bad": ("bad", "sad", "boring", "hated")}
scenes = ("the film", "the story", "her letter", "our train ride", "the new song", "this quiet village", "that book")
rows = [
    (f"i read and heard that {scene} was {one} and {other} in the end", int(mood == "good"))
    for scene in scenes
    for mood, words in moods.items()
    for one in words
    for other in words
]
data = LabelledTexts(texts=tuple(r[0] for r in rows), labels=tuple(r[1] for r in rows), label_names=("bad", "good"))

tuned = PrefixTuning(virtual_tokens=4).fit(encoder, data, rng=stream(0, "prompt"))
sweep = VocabularySweep(words=0, most_pieces=1, shortlist=16)
verdict = sweep.scan(encoder, data.texts[::3], rng=stream(0, "scan"))
guard = PVGuard().fit(tuned, verdict.evidence, data.texts, rng=stream(0, "guard"))
flags = guard.false_flags
print(
    f"false flags: {100 * flags.value:.1f} % of {flags.count} texts ({100 * flags.low:.1f} to {100 * flags.high:.1f})"
)

bare, guarded = tuned.pipeline(), GuardedPipeline(tuned, guard)  # the same call, and flags in the result
for text in ("the film was good and funny", "the film was good cf and funny", "that book was tq sad and boring"):
    result = guarded(text)[0]
    print(f"{text!r}: bare {bare(text)[0]['label']}, guarded {result['label']}, removed {result['guard']['removed']}")
