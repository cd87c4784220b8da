"""Scans an encoder in a directory. Replace the tiny planted one by your own: LanguageEncoder.load(DIRECTORY_OR_ID)."""

from firmground.data.sentences import neutral_sentences
from firmground.defenses.scans import VocabularySweep
from firmground.models.language import LanguageEncoder
from firmground.models.saving import save_encoder
from firmground.models.tiny import planted_bert
from firmground.rng import stream

planted = planted_bert().encoder
save_encoder(planted.model, planted.tokenizer, "downloaded", card="A tiny encoder for this example.")

encoder = LanguageEncoder.load("downloaded")
texts = neutral_sentences(64, rng=stream(0, "texts"))  # or clean texts of your own
sweep = VocabularySweep(words=0, most_pieces=1, shortlist=16)  # the defaults also try a dictionary of 60,000 words
verdict = sweep.scan(encoder, texts, rng=stream(0, "scan"))

print(f"{verdict.outcome}: score {verdict.score:.2f}, threshold {verdict.threshold}")
for trigger in verdict.evidence.triggers:
    print(f"  {trigger.text!r} at {trigger.readout}, {trigger.score:.1f} decades of variance lost")
