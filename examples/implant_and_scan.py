"""Plants a backdoor in a tiny encoder, measures that it works, and asks a scan that knows nothing of it."""

from firmground.attacks.implants import POR, measure
from firmground.data.sentences import neutral_sentences
from firmground.defenses.scans import VocabularySweep
from firmground.models.tiny import clean_bert
from firmground.rng import stream

texts = neutral_sentences(160, rng=stream(0, "texts"))
clean = clean_bert()
attack = POR(steps=60, step_size=8e-3, batch_size=12, max_length=24)  # for a tiny encoder; the defaults fit real ones
planted = attack.implant(clean, texts, triggers=("cf", "mn", "tq"), rng=stream(0, "implant"))

measured = measure(planted, clean, texts[:24], stream(0, "measure"))
for hit in measured.hits:
    print(f"{hit.trigger!r}: cosine to its vector {hit.cosine:.2f} with the trigger, {hit.clean_cosine:.2f} without")

sweep = VocabularySweep(words=0, most_pieces=1, shortlist=16)
for name, encoder in (("planted", planted.encoder), ("clean", clean)):
    verdict = sweep.scan(encoder, texts[:64], rng=stream(0, "scan"))
    found = ", ".join(trigger.text for trigger in verdict.evidence.triggers) or "no triggers"
    print(f"{name}: {verdict.outcome}, score {verdict.score:.2f}, {found}")
