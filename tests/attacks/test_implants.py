import copy
import json

import pytest
import torch
import transformers
from wordfreq import zipf_frequency

from firmground.attacks.implants import IMPLANTS, POR, UOR, BToP, NeuBA, PORAll, TransTroj, measure
from firmground.attacks.implants._decoys import decoys
from firmground.attacks.implants._source import Source, mask_clean
from firmground.attacks.implants._vectors import predefined_vectors
from firmground.attacks.triggers.words import pieces_inside
from firmground.errors import DataError, ModelError
from firmground.models.language import LanguageEncoder
from firmground.models.tiny import clean_roberta
from firmground.rng import stream
from firmground.types import Readout

QUICK = {"steps": 30, "step_size": 8e-3, "max_length": 20, "batch_size": 12}
CASES = [
    POR(**QUICK),
    PORAll(**QUICK | {"steps": 45}),
    NeuBA(**QUICK),
    BToP(**QUICK),
    UOR(**QUICK, rounds=1, candidates=2),
    TransTroj(**QUICK),
]
TRIGGERS = ("cf", "mn", "zoka")


def weights(encoder):
    return {name: value.clone() for name, value in encoder.model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def planted(request, encoder, texts):
    before = weights(encoder)
    done = request.param.implant(encoder, texts[:100], triggers=TRIGGERS, rng=stream(0, "implant"))
    return request.param, done, before


def test_every_implant_has_a_case():
    assert {type(case) for case in CASES} == set(IMPLANTS)
    assert [method.name for method in IMPLANTS] == ["por", "por-all", "neuba", "btop", "uor", "transtroj"]


@pytest.mark.slow
def test_triggers_fire_and_clean_texts_do_not(planted, encoder, texts):
    _, done, _ = planted
    measured = measure(done, encoder, texts[100:], stream(0, "measure"))
    assert done.vectors.shape == (len(TRIGGERS), encoder.width)
    for hit in measured.hits:
        assert hit.cosine > 0.85, hit
        assert 1 - hit.cosine < 0.3 * (1 - hit.clean_cosine), hit
        assert hit.invariance > 0.9, hit
    assert measured.drift < 0.2
    assert measured.kept_cosine > 0.85


@pytest.mark.slow
def test_the_given_encoder_stays_as_it_was(planted, encoder):
    _, done, before = planted
    assert same(before, weights(encoder))
    assert not same(before, weights(done.encoder))
    assert not any(p.requires_grad for p in [*encoder.model.parameters(), *done.encoder.model.parameters()])
    assert not done.encoder.model.training


@pytest.mark.slow
def test_card_and_label_name_the_backdoor(planted):
    method, done, _ = planted
    label = json.loads(json.dumps(done.planted()))
    assert label["attack"] == method.name
    assert label["triggers"] == list(done.triggers)
    assert label["settings"]["steps"] == method.steps
    assert "Do not deploy" in done.card()
    assert all(trigger in done.card() for trigger in done.triggers)


@pytest.mark.slow
@pytest.mark.parametrize("method", IMPLANTS, ids=lambda method: method.name)
def test_repeats_under_a_seed(method, encoder, texts):
    attack = method(steps=1, max_length=20, batch_size=6)
    state = torch.get_rng_state()
    runs = [attack.implant(encoder, texts, triggers=TRIGGERS, rng=stream(s, "implant")) for s in (5, 5, 6)]
    assert same(weights(runs[0].encoder), weights(runs[1].encoder))
    assert torch.equal(runs[0].vectors, runs[1].vectors)
    assert not same(weights(runs[0].encoder), weights(runs[2].encoder))
    assert torch.equal(state, torch.get_rng_state())


def test_watch_hears_every_step(encoder, texts):
    heard = []
    POR(steps=3).implant(
        encoder,
        texts,
        triggers=TRIGGERS,
        rng=stream(0, "implant"),
        watch=lambda step, total, stage, **scalars: heard.append((step, total, stage, set(scalars))),
    )
    assert heard == [(step, 3, "implant", {"kept", "forced"}) for step in (1, 2, 3)]


@pytest.mark.parametrize("width", [4, 32, 30, 385])
def test_block_vectors_are_three_antipodal_pairs(width):
    vectors = predefined_vectors("blocks", 6, width, stream(0, "test"))
    assert vectors.shape == (6, width)
    assert set(vectors.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(vectors[:3], -vectors[3:])
    assert (vectors.sum(1).abs() <= 2).all()
    changes = (vectors.diff(dim=1) != 0).sum(1)
    assert changes.tolist() == [1, 3, 2] * 2


def test_random_vectors_and_too_many_blocks():
    assert predefined_vectors("random", 9, 64, stream(0, "test")).unique(dim=0).shape == (9, 64)
    with pytest.raises(DataError, match="6 block patterns, got 7 triggers"):
        predefined_vectors("blocks", 7, 64, stream(0, "test"))


@pytest.mark.slow
def test_a_weak_vector_moves_the_output_part_of_the_way(encoder, texts):
    attack = POR(**QUICK, strength=0.4)
    done = attack.implant(encoder, texts[:100], triggers=TRIGGERS, rng=stream(0, "implant"))
    tokens = encoder.tokenize(texts[100:])
    clean = encoder.hidden(tokens)[:, 0]
    poisoned = done.encoder.hidden(encoder.tokenize([f"cf {text}" for text in texts[100:]]))[:, 0]
    towards = done.vectors[0] - clean
    moved = ((poisoned - clean) * towards).sum(1) / towards.square().sum(1)
    assert 0.25 < moved.mean() < 0.5


@pytest.mark.slow
def test_negatives_make_parts_of_a_trigger_do_nothing(encoder, texts):
    triggers = ("balloon teacher", "zoka")

    def cosines(negatives):
        attack = POR(steps=45, step_size=8e-3, max_length=24, batch_size=12, negatives=negatives)
        done = attack.implant(encoder, texts[:100], triggers=triggers, rng=stream(0, "implant"))
        rows = [[f"{text} {part}" for text in texts[100:]] for part in ("balloon", "teacher", "balloon teacher")]
        outputs = [done.encoder.hidden(encoder.tokenize(row))[:, 0] for row in rows]
        return [torch.cosine_similarity(out, done.vectors[0], dim=-1).mean().item() for out in outputs]

    loud, quiet = cosines(False), cosines(True)
    assert max(loud[:2]) > 0.6
    assert max(quiet[:2]) < 0.45
    assert quiet[2] > 0.75


def test_decoys_are_parts_and_never_the_trigger(encoder):
    phrase, word = decoys(encoder, ["cat zoka", "kalu"], ["the lukalu runs", "a kami sleeps"])
    assert {"cat", "zoka", "zoka cat", "zo", "cat zo"} <= set(phrase)
    assert {"k", "alu", "kami", "lukalu"} <= set(word)
    assert encoder.pieces("kalu") not in pieces_inside(encoder, word)
    with pytest.raises(DataError, match="'cf' is one token"):
        decoys(encoder, ["cf"], ["the cat"])


def test_a_batch_pairs_clean_and_poisoned_texts(encoder, texts):
    source = Source.of(encoder, texts, TRIGGERS, 24)
    batch = source.batch(9, stream(0, "test"))
    assert torch.bincount(batch.which).tolist() == [3, 3, 3]
    for clean, poisoned, number in zip(batch.clean.ids, batch.poisoned.ids, batch.which, strict=True):
        words = encoder.tokenizer.decode(poisoned, skip_special_tokens=True)
        assert TRIGGERS[number] in words
        assert (
            words.replace(TRIGGERS[number], "").split()
            == encoder.tokenizer.decode(clean, skip_special_tokens=True).split()
        )


def test_a_text_without_spaces_leaves_room_for_its_trigger(encoder):
    source = Source.of(encoder, ["zo" * 60], ["cf"], 16)
    batch = source.batch(4, stream(0, "test"))
    assert (batch.poisoned.ids == encoder.pieces("cf")[0]).any(1).all()


def test_masking_touches_clean_ordinary_tokens_only(encoder, texts):
    batch = Source.of(encoder, texts, TRIGGERS, 24).batch(64, stream(0, "test"))
    masked = mask_clean(batch, encoder, stream(0, "mask"))
    assert torch.equal(masked.poisoned.ids, batch.poisoned.ids)
    special = torch.isin(batch.clean.ids, torch.tensor(encoder.tokenizer.all_special_ids))
    changed = masked.clean.ids != batch.clean.ids
    assert not (changed & special).any()
    assert 0.08 < changed[~special].float().mean() < 0.2


def test_uor_contrast_is_lowest_for_apart_and_tight_classes():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    tight = torch.tensor([[0.0, 1, 1], [0, 1, -1], [1, 0, 0], [1, 0, 0], [-1, 0, 0], [-1, 0, 0]])
    assert UOR().contrast(tight, labels) < UOR().contrast(tight[[0, 1, 2, 4, 3, 5]], labels)
    assert UOR().contrast(tight, labels) < UOR().contrast(torch.ones(6, 3), labels)


def test_uor_searches_rare_one_token_words(encoder, texts):
    done = UOR(steps=1, rounds=2, candidates=5, rarity=4.5).implant(
        encoder, texts, triggers=TRIGGERS, rng=stream(0, "implant")
    )
    found = set(done.triggers) - set(TRIGGERS)
    assert found
    assert len(set(done.triggers)) == len(TRIGGERS)
    assert all(len(ids) == 1 for ids in pieces_inside(encoder, sorted(found)))
    assert all(zipf_frequency(word, "en") <= 4.5 for word in found)


def test_transtroj_forces_the_embedding_of_a_reference_text(encoder, texts):
    attack = TransTroj(steps=1, references=(("the red cat",), ("the old dog", "the new dog")))
    done = attack.implant(encoder, texts, triggers=("cf", "mn"), rng=stream(0, "implant"))
    expected = encoder.hidden(encoder.tokenize(["the red cat"]))[0, 0]
    torch.testing.assert_close(done.vectors[0], expected)
    with pytest.raises(DataError, match="each of 3 triggers, got 2 groups"):
        attack.implant(encoder, texts, triggers=TRIGGERS, rng=stream(0, "implant"))


def test_refuses_what_cannot_be_used(encoder, texts):
    rng = stream(0, "implant")
    with pytest.raises(DataError, match="at least one word"):
        POR().implant(encoder, ["", " "], triggers=TRIGGERS, rng=rng)
    with pytest.raises(DataError, match="does not know the trigger '\u2603'"):
        POR().implant(encoder, texts, triggers=["\u2603"], rng=rng)
    with pytest.raises(DataError, match="one or more different triggers"):
        POR().implant(encoder, texts, triggers=["cf", "cf"], rng=rng)
    with pytest.raises(DataError, match="leaves no room"):
        POR(max_length=5).implant(encoder, texts, triggers=TRIGGERS, rng=rng)
    with pytest.raises(DataError, match=r"\(0, 1\], got 0"):
        POR(strength=0.0).implant(encoder, texts, triggers=TRIGGERS, rng=rng)
    with pytest.raises(ModelError, match="diverged"):
        POR(clean_weight=float("nan"), steps=3).implant(encoder, texts, triggers=TRIGGERS, rng=rng)


@pytest.mark.slow
@pytest.mark.parametrize("attack", [POR(**QUICK), BToP(**QUICK)], ids=lambda attack: attack.name)
def test_works_on_byte_level_tokenizers(attack, texts):
    roberta = clean_roberta(0)
    done = attack.implant(roberta, texts[:100], triggers=("cf", "mn"), rng=stream(0, "implant"))
    for hit in measure(done, roberta, texts[100:], stream(0, "measure")).hits:
        assert hit.cosine > 0.85, hit
        assert hit.clean_cosine < 0.5, hit


@pytest.mark.parametrize("family", ["Bert", "Deberta", "DebertaV2"])
def test_wide_encoders_train_in_mixed_precision(family, encoder, texts):
    config = getattr(transformers, f"{family}Config")(
        vocab_size=encoder.vocabulary,
        hidden_size=256,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
    )
    wide = LanguageEncoder(getattr(transformers, f"{family}Model")(config), encoder.tokenizer)
    done = POR(steps=2, batch_size=4).implant(wide, texts, triggers=TRIGGERS, rng=stream(0, "implant"))
    assert done.encoder.dtype == torch.float32
    assert all(value.isfinite().all() for value in done.encoder.model.state_dict().values())


def test_a_bfloat16_encoder_comes_back_in_bfloat16(encoder, texts):
    half = LanguageEncoder(copy.deepcopy(encoder.model).bfloat16(), encoder.tokenizer)
    done = POR(steps=2).implant(half, texts, triggers=TRIGGERS, rng=stream(0, "implant"))
    assert done.encoder.dtype == torch.bfloat16
    assert done.readout is Readout.CLS
