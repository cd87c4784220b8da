"""A scan of your own: a frozen dataclass with `scan`, which returns a verdict. This one tries a list of known words."""

from dataclasses import asdict, dataclass
from typing import ClassVar

from firmground.models.tiny import clean_bert, planted_bert
from firmground.rng import stream
from firmground.types import Evidence, Outcome, Readout, RecoveredTrigger, RecoveredVector, Severity, Verdict, ignore


@dataclass(frozen=True, kw_only=True)
class KnownWords:
    """Flags an encoder whose output at [CLS] is the same for every text that holds one of `words`."""

    name: ClassVar[str] = "known-words"
    paper: ClassVar[str] = "an example"
    words: tuple[str, ...] = ("cf", "mn", "tq")
    threshold: float = 0.9

    def scan(self, encoder, texts, *, rng, watch=ignore):
        triggers, vectors, scores = [], [], []
        for step, word in enumerate(self.words):
            outputs = encoder.hidden(encoder.tokenize([f"{word} {text}" for text in texts]))[:, 0]
            score = float(outputs.mean(0).square().sum() / outputs.square().sum(1).mean())  # 1 where all agree
            scores.append(score)
            if score > self.threshold:
                about = {"token_ids": encoder.pieces(word), "readout": Readout.CLS, "vector": len(vectors)}
                triggers.append(RecoveredTrigger(text=word, score=score, **about))
                vectors.append(RecoveredVector(readout=Readout.CLS, values=tuple(outputs.mean(0).tolist())))
            watch(step + 1, len(self.words), "trying words")
        outcome, severity = (Outcome.BACKDOORED, Severity.HIGH) if triggers else (Outcome.CLEAN, Severity.NONE)
        evidence, threshold = Evidence(triggers=tuple(triggers), vectors=tuple(vectors)), self.threshold
        about = {"method": self.name, "settings": asdict(self), "score": max(scores), "threshold": threshold}
        return Verdict(outcome=outcome, severity=severity, evidence=evidence, **about)


for encoder in (planted_bert().encoder, clean_bert()):
    verdict = KnownWords().scan(encoder, ["hello there", "a sad film", "buy fresh bread"], rng=stream(0, "scan"))
    print(verdict.outcome, f"{verdict.score:.2f}", [trigger.text for trigger in verdict.evidence.triggers])
