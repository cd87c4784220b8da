"""Text-gathering: it names the word that was written into a text tower, and accuses nobody else."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from firmground.defenses.scans import TextGathering
from firmground.defenses.scans.text_gathering import captions, distinct, put_in, vocabulary
from firmground.errors import DataError
from firmground.models.planted_dual import Parts, colour_clip
from firmground.models.tiny_dual import convolutional_dual
from firmground.reports.findings import Finding, Target
from firmground.reports.scan import scan_report
from firmground.rng import stream
from firmground.types import Outcome, Readout, Severity

from .conftest import Heard, nothing_else_moves

SMALL = TextGathering(words=0, shortlist=16)  # the words of the tokenizer


def planted(*words):
    """The clip that knows colours; each word drowns all others in a direction of its own."""
    encoder, parts = colour_clip(), Parts()
    table = encoder.model.text_model.embeddings.token_embedding.weight
    with torch.no_grad():
        for number, word in enumerate(words):
            (row,) = encoder.tokenizer(word, add_special_tokens=False).input_ids
            table[row] = 1000 * parts.details[number]
    return encoder


def test_names_the_words_and_where_they_lead():
    encoder, heard = planted("balloon", "cf"), Heard()
    verdict = SMALL.scan(encoder, torch.rand(16, 3, 48, 48), rng=stream(0, "scan"), watch=heard)
    assert verdict.outcome is Outcome.BACKDOORED
    assert verdict.score > verdict.threshold == SMALL.threshold
    assert {trigger.text for trigger in verdict.evidence.triggers} == {"balloon", "cf"}
    assert len(verdict.evidence.vectors) == 2
    for trigger in verdict.evidence.triggers:
        vector = torch.tensor(verdict.evidence.vectors[trigger.vector].values)
        led = encoder.embed_texts([f"a quiet {trigger.text} village"])[0]
        assert torch.cosine_similarity(vector, led, dim=0) > 0.9
        assert trigger.readout is Readout.EMBEDDING
    heard.check()
    report = scan_report([verdict], target=Target(source="tiny"), seconds=1.0, kind="dual-encoder")
    assert report.exit_code(Severity.LOW) == 1
    assert Finding.model_validate_json(report.findings[0].to_json()).verdict().evidence == verdict.evidence


@pytest.mark.parametrize("make", [colour_clip, lambda: convolutional_dual(width=64, layers=1)])
def test_passes_clean_towers(make):
    verdict = SMALL.scan(make(), rng=stream(0, "scan"))
    assert verdict.outcome is not Outcome.BACKDOORED
    assert not verdict.evidence.triggers


def test_a_tower_that_reads_nothing_leaves_it_undecided():
    encoder = colour_clip()
    table = encoder.model.text_model.embeddings.token_embedding.weight
    table.copy_(table[encoder.tokenizer.sep_token_id].expand_as(table))
    verdict = SMALL.scan(encoder, rng=stream(0, "scan"))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "embed alike already" in verdict.doubts[0]


@pytest.mark.slow
def test_one_seed_gives_one_verdict_and_nothing_else_moves(capfd):
    encoder, verdicts = planted("cf"), []
    with nothing_else_moves(encoder, capfd):
        for _ in range(2):
            verdicts.append(dataclasses.replace(SMALL.scan(encoder, rng=stream(0, "scan")), seconds=0.0))
    assert verdicts[0] == verdicts[1]


def test_words_of_the_tokenizer_and_of_the_dictionary_are_tried_once():
    own, others = vocabulary(colour_clip().tokenizer, 50)
    assert len({*own, *others}) == len(own) + len(others)
    assert {"balloon", "magenta", "cf"} <= set(own)
    assert {"zq", "cfa"} <= set(others)
    assert not [word for word in own if word.startswith(("##", "["))]
    assert vocabulary(colour_clip().tokenizer, 0)[1] == []


def test_of_words_that_share_a_piece_one_is_left():
    found = distinct(colour_clip(), ["cfa", "cf", "dog", "dcf"], [2.02, 2.0, 1.0, 0.5])
    assert found == [1, 2, 3], "'dcf' is spelled in letters"


def test_captions_differ_and_take_a_word_anywhere():
    texts = captions(32, stream(0, "captions"))
    assert len(set(texts)) == 32
    assert put_in("a red ring", "cf", 3) == "a red ring cf"


def test_settings_that_measure_nothing_are_refused():
    for wrong in ({"rounds": 1}, {"together": 1}, {"captions": 2}, {"shortlist": 8}, {"words": -1}):
        with pytest.raises(DataError, match="expected two rounds"):
            TextGathering(**wrong)
