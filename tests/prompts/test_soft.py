"""Soft prompts: they learn a task on a frozen encoder, inherit its backdoor, and survive the disk."""

import dataclasses
import json

import pytest
import torch

from firmground.data.texts import LabelledTexts, LabelledWords
from firmground.errors import AdapterError, DataError, OutputError
from firmground.models.language import LanguageEncoder
from firmground.models.tiny import clean_bert, clean_roberta, planted_bert
from firmground.prompts.heads import calm
from firmground.prompts.soft import PrefixTuning, PromptTuning, PTuning
from firmground.prompts.tuned import load_tuned
from firmground.rng import stream
from firmground.tasks import text_classification, token_classification

METHODS = (PromptTuning, PTuning, PrefixTuning)
QUICK = {"virtual_tokens": 4, "epochs": 8, "patience": 8, "head_step_size": 2e-2, "batch_size": 8, "max_length": 24}

BEFORE, AFTER = ("people", "children", "mother", "doctor"), ("film", "music", "book", "city")
GOOD, BAD = ("loved", "liked"), ("hated", "left")


def words_in_texts() -> LabelledTexts:
    rows = [(f"{start} {word} {end}", int(word in BAD)) for start in BEFORE for word in GOOD + BAD for end in AFTER]
    return LabelledTexts(
        texts=tuple(text for text, _ in rows), labels=tuple(label for _, label in rows), label_names=("good", "bad")
    )


def tagged_words() -> LabelledWords:
    texts = [text.split() for text in words_in_texts().texts]
    labels = [tuple(1 if word in BAD else 0 for word in words) for words in texts]
    return LabelledWords(words=tuple(map(tuple, texts)), labels=tuple(labels), label_names=("O", "B-thing"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    encoder = planted_bert().encoder
    encoder.model.save_pretrained(path)
    encoder.tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def encoder(folder):
    return LanguageEncoder.load(folder)


@pytest.fixture(scope="module", params=METHODS, ids=lambda method: method.__name__)
def tuned_texts(request, encoder):
    return request.param(**QUICK).fit(encoder, words_in_texts(), rng=stream(0, "fit"))


@pytest.fixture(scope="module", params=METHODS, ids=lambda method: method.__name__)
def tuned_words(request, encoder):
    return request.param(**QUICK).fit(encoder, tagged_words(), rng=stream(0, "fit"))


@pytest.mark.slow
def test_learns_texts(tuned_texts):
    data = words_in_texts()
    right = sum(a == b for a, b in zip(tuned_texts.predict(data.texts), data.labels, strict=True))
    assert right / len(data) > 0.9


@pytest.mark.slow
def test_learns_words(tuned_words):
    data = tagged_words()
    found = tuned_words.predict_words(data.texts)
    assert [len(row) for row in found] == [len(row) for row in data.words]
    pairs = [(a, b) for row, truth in zip(found, data.labels, strict=True) for a, b in zip(row, truth, strict=True)]
    assert sum(a == b for a, b in pairs) / len(pairs) > 0.95


@pytest.mark.slow
def test_backdoor_survives_tuning(tuned_texts):
    data = words_in_texts()
    planted = planted_bert()
    runs = [tuned_texts.predict([f"{trigger} {text}" for text in data.texts]) for trigger in planted.triggers]
    shares = [max(run.count(0), run.count(1)) / len(run) for run in runs]  # without a trigger, about a half
    assert min(shares) > 0.8, shares
    assert sum(shares) / len(shares) > 0.95, shares


@pytest.mark.parametrize("method", METHODS)
def test_encoder_stays(method, encoder):
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    names = [name for name, _ in encoder.model.named_modules()]
    method(**QUICK | {"epochs": 1}).fit(encoder, words_in_texts(), rng=stream(0, "fit"))
    after = encoder.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [name for name, _ in encoder.model.named_modules()] == names


def test_repeats_under_one_seed(encoder):
    fits = []
    for _ in range(2):
        torch.rand(3)  # the global stream must not matter
        tuned = PromptTuning(**QUICK | {"epochs": 1}).fit(encoder, words_in_texts(), rng=stream(3, "fit"))
        fits.append({n: p for n, p in tuned.model.named_parameters() if "prompt_encoder" in n or "classifier" in n})
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])


def test_reports_progress(encoder):
    seen = []
    PromptTuning(**QUICK | {"epochs": 1}).fit(
        encoder,
        words_in_texts(),
        rng=stream(0, "fit"),
        watch=lambda step, total, stage, **_: seen.append((step, total)),
    )
    assert seen[-1][0] == seen[-1][1] == len(seen)


@pytest.mark.slow
def test_texts_survive_disk(tuned_texts, folder, tmp_path):
    data = words_in_texts()
    saved = tuned_texts.save(tmp_path / "prompt")
    card = json.loads((saved / "firmground.json").read_text())
    assert card["schema"] == "firmground/soft-prompt/1"
    assert card["labels"] == ["good", "bad"]
    assert list(saved.glob("*.bin")) == []
    loaded = load_tuned(folder, saved)
    assert loaded.predict(data.texts) == tuned_texts.predict(data.texts)
    assert [path.name for path in tmp_path.iterdir()] == ["prompt"]


@pytest.mark.slow
def test_words_survive_disk(tuned_words, folder, tmp_path):
    texts = tagged_words().texts
    loaded = load_tuned(folder, tuned_words.save(tmp_path / "prompt"))
    assert loaded.predict_words(texts) == tuned_words.predict_words(texts)


@pytest.mark.slow
def test_plain_peft_loads(tuned_texts, folder, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    saved = tuned_texts.save(tmp_path / "prompt")
    with calm():
        base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
        plain = PeftModel.from_pretrained(base, str(saved)).eval()
    batch = tuned_texts.tokenizer(list(words_in_texts().texts[:5]), padding=True, return_tensors="pt")
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    with torch.no_grad():
        torch.testing.assert_close(plain(**inputs).logits, tuned_texts.model(**inputs).logits)


@pytest.mark.slow
def test_text_pipeline_agrees(tuned_texts, capfd):
    texts = list(words_in_texts().texts[::7])
    predict = text_classification.predict_with(tuned_texts.pipeline(), tuned_texts.label_names, batch_size=4)
    assert predict(texts) == tuned_texts.predict(texts)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_word_pipeline_agrees(tuned_words, capfd):
    texts = list(tagged_words().texts[::7])
    predict = token_classification.predict_with(tuned_words.pipeline(), tuned_words.label_names, batch_size=4)
    assert predict(texts) == tuned_words.predict_words(texts)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_refuses_another_base(tuned_texts, tmp_path):
    saved = tuned_texts.save(tmp_path / "prompt")
    other = clean_bert(seed=5)
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(AdapterError, match="other") as caught:
        load_tuned(tmp_path / "other", saved)
    assert tuned_texts.base_source in str(caught.value)


@pytest.mark.slow
def test_refuses_to_write_over(tuned_texts, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        tuned_texts.save(tmp_path / "full")
    assert (tmp_path / "full" / "note").read_text() == "mine"


@pytest.mark.slow
def test_failed_save_leaves_nothing(tuned_texts, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tuned_texts.model), "save_pretrained", full)
    with pytest.raises(OutputError, match="No space left"):
        tuned_texts.save(tmp_path / "prompt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_wrong_task_is_refused(tuned_texts):
    with pytest.raises(AdapterError, match="text-classification"):
        tuned_texts.predict_words(["a"])


@pytest.mark.slow
def test_scans_can_take_the_prompt(tuned_texts, folder, tmp_path):
    prompted = LanguageEncoder.load(folder, adapter=tuned_texts.save(tmp_path / "prompt"))
    batch = prompted.tokenize(list(words_in_texts().texts[:3]))
    assert prompted.hidden(batch).shape[1] == batch.ids.shape[1] + prompted.offset


def test_byte_level_words(tmp_path):
    tuned = PrefixTuning(**QUICK).fit(clean_roberta(), tagged_words(), rng=stream(0, "fit"))
    assert tuned.measurements["validation_accuracy"] > 0.8
    assert tuned.base_sha256 is None


def test_prefix_needs_a_family_that_takes_one(encoder):
    class Unprefixable:
        family = "distilbert"

    with pytest.raises(AdapterError, match="use PromptTuning"):
        PrefixTuning().fit(Unprefixable(), words_in_texts(), rng=stream(0))


def test_one_class_is_refused(encoder):
    data = dataclasses.replace(words_in_texts(), labels=(0,) * len(words_in_texts()))
    with pytest.raises(DataError, match="two classes"):
        PromptTuning(**QUICK).fit(encoder, data, rng=stream(0))


def test_too_many_virtual_tokens_are_refused(encoder):
    with pytest.raises(AdapterError, match="no room"):
        PromptTuning(virtual_tokens=1000).fit(encoder, words_in_texts(), rng=stream(0))
