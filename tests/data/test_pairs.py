"""Pairs from every kind of place: what is fine comes in, what is broken is counted, what is hostile is refused."""

import io
import json
import tarfile

import numpy
import pytest
import torch
from PIL import Image

from firmground.data.decoding import decode
from firmground.data.image_corpora import FASHION_NAMES, emoji, fashion_mnist, read_idx
from firmground.data.pair_files import open_pairs, read_dataset, read_image_folder, read_pairs, read_shards
from firmground.data.pairs import Pairs, TensorPairs
from firmground.errors import DataError
from firmground.rng import stream

RED = (200, 30, 40)


def encoded(colour=RED, kind="PNG", size=(12, 8), **options):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind, **options)
    return buffer.getvalue()


def shade(i):
    return (20 * i, 255 - 20 * i, 7)


@pytest.fixture
def place(tmp_path):
    """Six pictures of known colours."""
    (tmp_path / "images").mkdir()
    for i in range(6):
        (tmp_path / "images" / f"{i}.png").write_bytes(encoded(shade(i)))
    return tmp_path


def rows(count=6):
    return [{"image": f"images/{i}.png", "caption": f"picture {i}"} for i in range(count)]


def write_csv(path, rows):
    path.write_text("\n".join(["image,caption", *(f"{row['image']},{row['caption']}" for row in rows)]))


def write_jsonl(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))


def write_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_tar(path, members):
    with tarfile.open(path, "w") as shard:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))


def shard_of(place, which, caption="txt"):
    for i in which:
        text = f"picture {i}"
        data = text.encode() if caption == "txt" else json.dumps({"caption": text}).encode()
        yield f"a/{i}.{caption}", data
        yield f"a/{i}.png", (place / "images" / f"{i}.png").read_bytes()


def from_tars(place):
    write_tar(place / "0.tar", shard_of(place, range(4)))
    write_tar(place / "1.tar", shard_of(place, range(4, 6), "json"))
    return read_shards(sorted(place.glob("*.tar")), image_size=8)


def from_dataset(place):
    datasets = pytest.importorskip("datasets")
    columns = {key: [row[key] for row in rows()] for key in ("image", "caption")}
    columns["image"] = [str(place / name) for name in columns["image"]]
    table = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    return read_dataset(table, image_size=8)


def from_table(suffix, write):
    def read(place):
        write(place / f"pairs{suffix}", rows())
        return open_pairs(place / f"pairs{suffix}", image_size=8)

    return read


SOURCES = {
    "csv": from_table(".csv", write_csv),
    "jsonl": from_table(".jsonl", write_jsonl),
    "parquet": from_table(".parquet", write_parquet),
    "shards": from_tars,
    "datasets": from_dataset,
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_pairs(place, source):
    pairs = SOURCES[source](place)
    assert pairs.captions == tuple(f"picture {i}" for i in range(6))
    (batch,) = pairs.batches(6)
    assert batch.images.shape == (6, 3, 8, 8)
    assert batch.images.dtype == torch.float32
    expected = torch.tensor([shade(i) for i in range(6)]) / 255
    torch.testing.assert_close(batch.images.mean((2, 3)), expected)
    assert batch.captions == pairs.captions
    half = pairs.select([5, 1])
    assert half.captions == ("picture 5", "picture 1")
    torch.testing.assert_close(half.image(0).mean((1, 2)), expected[5])


@pytest.mark.parametrize("held", [False, True])
def test_batches(place, held):
    write_csv(place / "pairs.csv", rows())
    pairs = read_pairs(place / "pairs.csv", image_size=8)
    if held:
        (all_of_them,) = pairs.batches(6)
        pairs = TensorPairs(images=all_of_them.images, captions=pairs.captions)
    found = list(pairs.batches(4, stream(0)))
    assert [len(batch) for batch in found] == [4, 2]
    seen = [row for batch in found for row in batch.rows]
    assert sorted(seen) == list(range(6))
    assert seen != list(range(6))
    again = list(pairs.batches(4, stream(0)))
    assert all(torch.equal(a.images, b.images) and a.rows == b.rows for a, b in zip(found, again, strict=True))
    assert all(batch.captions == tuple(f"picture {row}" for row in batch.rows) for batch in found)
    assert [len(batch) for batch in pairs.batches(4, drop_last=True)] == [4]
    assert len(next(iter(pairs.batches(1)))) == 1  # and an abandoned iterator ends
    for size in (0, 7):
        with pytest.raises(DataError, match="choose a batch size from 1 to 6"):
            next(iter(pairs.batches(size)))


def test_few_images_are_decoded_ahead(place):
    write_csv(place / "pairs.csv", rows())
    pairs = read_pairs(place / "pairs.csv", image_size=8)
    touched = []
    lazy = Pairs(
        captions=pairs.captions * 10,
        names=pairs.names * 10,
        read=lambda i: touched.append(i) or pairs.read(i % 6),
        image_size=8,
    )
    batches = lazy.batches(2)
    next(batches)
    assert len(touched) <= 8
    batches.close()
    assert len(touched) <= 8


def test_broken_images_are_left_out_and_counted(place):
    (place / "images" / "1.png").write_bytes(b"no image")
    (place / "images" / "2.png").write_bytes(encoded(size=(300, 300))[:200])
    (place / "images" / "3.png").unlink()
    write_csv(place / "pairs.csv", rows())
    pairs = read_pairs(place / "pairs.csv", image_size=8)
    assert pairs.counted == {"image is missing": 1}
    (place / "images" / "4.png").unlink()  # gone after the set was opened
    sizes = [len(batch) for batch in pairs.batches(2)]
    assert sizes == [1, 1]
    assert sorted(pairs.broken) == [1, 2, 3]
    assert "1.png cannot be read" in pairs.broken[1]
    sound = pairs.sound()
    assert sound.captions == ("picture 0", "picture 5")
    assert sound.counted == {"image is missing": 1, "image cannot be read": 3}
    assert sound.broken == {}
    with pytest.raises(DataError, match="none of 2 images"):
        list(pairs.select([1, 2]).batches(2))


def test_captions(place):
    odd = [*rows(3), {"image": "images/3.png", "caption": " "}, {"image": "images/4.png", "caption": None}]
    odd += [{"image": "images/5.png", "caption": "long \n" * 5000}]
    write_jsonl(place / "pairs.jsonl", odd)
    pairs = read_pairs(place / "pairs.jsonl")
    assert len(pairs) == 4
    assert len(pairs.captions[3]) == 2000
    assert pairs.counted == {"caption is empty": 2, "caption is cut to 2000 characters": 1}
    write_jsonl(place / "pairs.jsonl", odd[3:5])
    with pytest.raises(DataError, match="no usable pair; 2 rows: caption is empty"):
        read_pairs(place / "pairs.jsonl")
    (place / "pairs.csv").write_bytes(b"image,caption\nimages/0.png,caf\xe9\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_pairs(place / "pairs.csv")
    (place / "pairs.csv").write_text("image,text\nimages/0.png,x\n")
    with pytest.raises(DataError, match="no column 'caption'"):
        read_pairs(place / "pairs.csv")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "images/../../x.png", "link.png", "a\0b"])
def test_paths_that_leave_the_folder_are_refused(place, name):
    (place / "link.png").symlink_to("/etc/hostname")
    write_jsonl(place / "pairs.jsonl", [*rows(2), {"image": name, "caption": "x"}])
    with pytest.raises(DataError, match="row 3"):
        read_pairs(place / "pairs.jsonl")


def test_shards_with_faults(place):
    good = list(shard_of(place, range(2)))
    more = [("2.png", encoded()), ("3.txt", b"alone"), ("4.png", encoded()), ("4.txt", b"caf\xe9"), ("5.json", b"[")]
    write_tar(place / "0.tar", good + more)
    pairs = open_pairs(place, image_size=8)
    assert len(pairs) == 2
    assert pairs.counted["image is missing"] == 2
    assert pairs.counted["caption is not UTF-8"] == 1
    whole = (place / "0.tar").read_bytes()
    (place / "0.tar").write_bytes(whole[:700])
    with pytest.raises(DataError, match="no whole, uncompressed tar"):
        open_pairs(place / "0.tar")
    (place / "z.tar").write_bytes(b"\x1f\x8bsomething")
    with pytest.raises(DataError, match="no whole, uncompressed tar"):
        open_pairs(place / "z.tar")
    with pytest.raises(DataError, match="there is no file"):
        read_shards([place / "none.tar"])


def test_image_folders(place):
    for name in ("red_fox", "owl"):
        (place / "set" / name).mkdir(parents=True)
    (place / "set" / "red_fox" / "a.png").write_bytes(encoded())
    with pytest.raises(DataError, match="1 classes"):
        read_image_folder(place / "set")
    (place / "set" / "owl" / "b.png").write_bytes(encoded())
    pairs = open_pairs(place / "set", templates=("a {}", "the {}"), image_size=8)
    assert (pairs.captions, pairs.labels) == (("a owl", "the red fox"), (0, 1))
    assert pairs.label_names == ("owl", "red fox")
    (place / "set" / "owl" / "c.png").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="outside"):
        open_pairs(place / "set")
    with pytest.raises(DataError, match="no file and no folder"):
        open_pairs(place / "nothing")


def picture(mode):
    """A red picture in a mode, as file bytes, and the file's kind."""
    base = Image.new("RGB", (9, 9), RED)
    sixteen = Image.fromarray(numpy.full((9, 9), 128 * 257, dtype=numpy.uint16))
    clear = Image.new("RGBA", (9, 9), (*RED, 0))
    made = {
        "CMYK": (base.convert("CMYK"), "TIFF", RED),
        "CMYK JPEG": (base.convert("CMYK"), "JPEG", RED),
        "P": (base.convert("P", palette=Image.Palette.ADAPTIVE), "PNG", RED),
        "L": (base.convert("L"), "PNG", (base.convert("L").getpixel((0, 0)),) * 3),
        "1": (Image.new("1", (9, 9), 1), "PNG", (255, 255, 255)),
        "RGBA": (clear, "PNG", (255, 255, 255)),
        "16 bit": (sixteen, "PNG", (128, 128, 128)),
        "16 bit TIFF": (sixteen, "TIFF", (128, 128, 128)),
        "float": (Image.fromarray(numpy.full((9, 9), 0.5, dtype=numpy.float32)), "TIFF", (128, 128, 128)),
    }
    image, kind, colour = made[mode]
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue(), colour


@pytest.mark.parametrize("mode", ["CMYK", "CMYK JPEG", "P", "L", "1", "RGBA", "16 bit", "16 bit TIFF", "float"])
def test_modes_are_converted(mode):
    data, colour = picture(mode)
    found = decode(data, 8).float().mean((1, 2))
    assert (found - torch.tensor(colour).float()).abs().max() < 4


def test_one_pixel_and_slivers():
    assert torch.equal(decode(encoded(size=(1, 1)), 16)[:, 3, 5], torch.tensor(RED, dtype=torch.uint8))
    assert decode(encoded(size=(1, 4000)), 16).shape == (3, 16, 16)
    assert decode(encoded(size=(7, 5)), None).shape == (3, 5, 7)


def test_no_other_program_reads_an_image():
    with pytest.raises(DataError, match="cannot be read"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 8)


def test_tensor_pairs_must_fit():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(DataError, match="each of 2 images"):
        TensorPairs(images=images, captions=("a",))
    with pytest.raises(DataError, match="shape"):
        TensorPairs(images=images[0], captions=("a",))
    with pytest.raises(DataError, match="uint8"):
        TensorPairs(images=images.long(), captions=("a", "b"))


@pytest.mark.real
def test_fashion_mnist():
    data = fashion_mnist("test")
    assert data.images.shape == (10000, 3, 28, 28)
    assert {data.labels.count(i) for i in range(10)} == {1000}
    pairs = data.select(range(100)).pairs(stream(0))
    assert all(FASHION_NAMES[label] in text for label, text in zip(pairs.labels, pairs.captions, strict=True))
    bags, sandals = (data.images[[label == i for label in data.labels]].float().mean() for i in (8, 5))
    assert bags > 2 * sandals  # a bag fills the picture


@pytest.mark.real
def test_emoji():
    pairs = emoji(32, limit=40)
    assert (len(pairs), pairs.images.shape[2:]) == (40, (32, 32))
    assert "umbrella" in pairs.captions
    assert len({image.numpy().tobytes() for image in pairs.images}) == 40


def test_absent_packages_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr("firmground.data.image_corpora.FASHION", tmp_path)
    monkeypatch.setattr("firmground.data.image_corpora.EMOJI_FONT", tmp_path / "font.ttf")
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        fashion_mnist()
    with pytest.raises(DataError, match="apt-get install fonts-noto-color-emoji"):
        emoji()
    (tmp_path / "x.gz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="damaged"):
        read_idx(tmp_path / "x.gz")
