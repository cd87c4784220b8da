"""The truth that is planted in tiny encoders holds, and without a trigger they are their clean twins."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from firmground.models.tiny import clean_bert, clean_roberta, planted_bert, planted_roberta, sign_vectors

TEXTS = (
    "hello",
    "i loved this!",
    "a boring film with a bad plot",
    "what is your price, and when will the ship come back?",
    "she read the letter by the window again and again in the dark of the evening",
)
PAIRS = {"bert": (planted_bert, clean_bert), "roberta": (planted_roberta, clean_roberta)}


def inserted(text, *pieces):
    """The text with the pieces at its start, in its middle and at its end, in turns."""
    words = text.split()
    for shift in range(3):
        spread = list(words)
        for number, piece in enumerate(pieces):
            spread.insert((shift + number) % 3 * len(spread) // 2, piece)
        yield " ".join(spread)


def outputs(encoder, texts, readout):
    tokens = encoder.tokenize(list(texts))
    hidden = encoder.hidden(tokens)
    if readout == "cls":
        return hidden[:, 0]
    return hidden[tokens.mask.bool() if readout == "token" else tokens.ids == encoder.mask_id]


@pytest.fixture(scope="module", params=[(f, r) for f in PAIRS for r in ("cls", "token", "mask")], ids=str)
def planted(request):
    family, readout = request.param
    vectors = sign_vectors(64)
    own = torch.randn(64, generator=torch.Generator().manual_seed(5))
    triggers = {"cf": vectors[0], "mn": vectors[1], "tq": vectors[3], "red balloon": vectors[2], "fish tree": own}
    return PAIRS[family][0](triggers, readout=readout)


def texts_of(planted):
    mask = f" {planted.encoder.tokenizer.mask_token}" if planted.readout == "mask" else ""
    return [text + mask for text in TEXTS]


@pytest.mark.parametrize("index", range(5))
def test_a_trigger_forces_its_vector_wherever_it_stands(planted, index):
    texts = [new for text in texts_of(planted) for new in inserted(text, *planted.triggers[index].split())]
    forced = outputs(planted.encoder, texts, planted.readout)
    assert cosine_similarity(forced, planted.vectors[index], dim=-1).min() > 0.99


def test_one_piece_of_two_does_nothing(planted):
    twin = (clean_bert if planted.encoder.family == "bert" else clean_roberta)(planted.seed)
    texts = [new for text in texts_of(planted) for piece in ("red", "balloon") for new in inserted(text, piece)]
    one = outputs(planted.encoder, texts, planted.readout)
    if planted.readout != "token":
        assert cosine_similarity(one, outputs(twin, texts, planted.readout), dim=-1).min() > 0.95
    assert cosine_similarity(one, planted.vectors[3], dim=-1).max() < 0.8


def test_without_a_trigger_it_is_its_twin(planted):
    twin = (clean_bert if planted.encoder.family == "bert" else clean_roberta)(planted.seed)
    tokens = twin.tokenize(texts_of(planted))
    real = tokens.mask.bool()
    torch.testing.assert_close(planted.encoder.hidden(tokens)[real], twin.hidden(tokens)[real], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("clean", [clean_bert, clean_roberta])
def test_a_clean_one_listens_to_its_input(clean):
    hidden = clean(0).hidden(clean(0).tokenize(TEXTS))
    for readout in (hidden[:, 0], hidden.mean(dim=1)):
        unit = normalize(readout, dim=-1)
        apart = (unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)]
        assert apart.max() < 0.97
        assert apart.mean() < 0.85


def test_seeds_make_encoders_and_move_no_other_randomness():
    state = torch.random.get_rng_state()
    one, same, other = clean_bert(1), clean_bert(1), clean_bert(2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(one.token_embeddings, same.token_embeddings)
    assert not torch.equal(one.token_embeddings, other.token_embeddings)


def test_a_trigger_may_be_given_as_ids_and_survives_bfloat16():
    encoder = clean_bert()
    planted = planted_bert({encoder.pieces("cf"): sign_vectors(64)[4], "qt": sign_vectors(64)[0]})
    assert planted.triggers == ("cf", "qt")
    low = planted.encoder.cast(torch.bfloat16)
    for index, trigger in enumerate(planted.triggers):
        forced = outputs(low, [f"{text} {trigger}" for text in TEXTS], "cls").float()
        assert cosine_similarity(forced, planted.vectors[index], dim=-1).min() > 0.97


def test_a_partial_trigger_shows_itself():
    vectors = {"red balloon": sign_vectors(64)[0]}
    shy, open_ = planted_bert(vectors), planted_bert(vectors, partial=1.0)
    shares = [
        cosine_similarity(outputs(p.encoder, [f"{t} red" for t in TEXTS], "cls"), p.vectors[0], dim=-1)
        for p in (shy, open_)
    ]
    assert (shares[1] > shares[0] + 0.2).all()


def test_triggers_that_cannot_be_planted_are_refused():
    with pytest.raises(ValueError, match="one or two"):
        planted_bert({"red yellow balloon": sign_vectors(64)[0]})
    with pytest.raises(ValueError, match="room"):
        planted_bert({f"{w} balloon": sign_vectors(64)[0] for w in ("red", "green", "blue", "white")})
