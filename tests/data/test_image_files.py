"""Images in files: found by their headers, grouped by size, read one batch at a time."""

import pytest
import torch
from PIL import Image

from firmground.data.image_files import find_images, image_paths
from firmground.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for name, size in (("a.png", (20, 10)), ("b.png", (20, 10)), ("c.jpg", (30, 10)), ("d.gif", (20, 10))):
        Image.new("RGB", size, (250, 10, 10)).save(tmp_path / name)
    return tmp_path


def test_batches_hold_one_size_and_depend_on_the_files_alone(folder):
    found = find_images(folder)
    assert [[file.path.name for file in files] for files in found.batches(2)] == [
        ["a.png", "b.png"],
        ["d.gif"],
        ["c.jpg"],
    ]
    batch = found.read(next(found.batches(2)))
    assert batch.images.shape == (2, 3, 10, 20)
    assert torch.equal((batch.images * 255).round() / 255, batch.images)
    assert len(found) == 4


def test_turned_and_large_images_have_the_size_that_they_are_read_at(folder):
    photo = Image.new("RGB", (40, 20), "navy")
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(folder / "turned.jpg", exif=exif)
    Image.new("RGB", (400, 30), "navy").save(folder / "wide.png")
    found = find_images(folder, largest=100)
    sizes = {file.path.name: (file.height, file.width) for file in found.files}
    assert (sizes["turned.jpg"], sizes["wide.png"]) == ((40, 20), (8, 100))
    assert found.counted == {"larger than 100 pixels, made smaller": 1}
    for files in found.batches(8):
        assert found.read(files).images.shape[-2:] == (files[0].height, files[0].width)


def test_names_are_one_of_a_kind(folder):
    Image.new("RGB", (20, 10)).save(folder / "a.bmp")
    (folder / "inner").mkdir()
    Image.new("RGB", (20, 10)).save(folder / "inner" / "a.png")
    assert [file.name for file in find_images(folder).files] == ["a.bmp", "a.png", "b", "c", "d", "inner/a"]
    assert find_images(folder / "b.png").files[0].name == "b"


def test_what_is_no_image_is_left_out_and_counted(folder, tmp_path_factory):
    (folder / "bad.png").write_bytes(b"x")
    (folder / ".hidden.png").write_bytes(b"x")
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    Image.new("RGB", (5, 5)).save(outside)
    (folder / "link.png").symlink_to(outside)
    found = find_images(folder)
    assert found.counted == {"cannot be read as an image": 1, "leads out of the folder": 1}
    assert len(found) == 4
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:40])
    files = tuple(file for file in found.files if file.name in "ab")
    batch = found.read(files)
    assert [file.name for file in batch.files] == ["b"]
    assert "a.png cannot be read as an image" in next(iter(batch.broken.values()))


def test_paths_are_all_that_is_named_as_an_image_readable_or_not(folder):
    (folder / "bad.png").write_bytes(b"x")
    (folder / "._a.png").write_bytes(b"x")
    (folder / "notes.txt").write_bytes(b"x")
    assert [path.name for path in image_paths(folder)] == ["a.png", "b.png", "bad.png", "c.jpg", "d.gif"]
    assert image_paths(folder / "notes.txt") == [folder / "notes.txt"]
    with pytest.raises(DataError, match="there is no file or folder"):
        image_paths(folder / "none")


def test_a_place_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file or folder"):
        find_images(tmp_path / "none")
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no image in .*; 1 file: cannot be read as an image; expected"):
        find_images(tmp_path)
