"""Annotated images: written, read, shown with other images, and refused where they do not fit."""

import json
from collections import Counter

import pytest
import torch
from PIL import Image

from firmground.data.annotated_images import IGNORED, annotated_scenes
from firmground.data.annotation_files import read_annotated
from firmground.data.annotation_writing import write_annotated
from firmground.data.scenes import SceneWorld
from firmground.errors import DataError, OutputError


@pytest.fixture
def scenes():
    world = SceneWorld(size=24, classes=("circle", "star"), objects=(1, 2), captions=2)
    return annotated_scenes(world.scenes(3, seed=0), novel=("star",))


@pytest.fixture
def folder(scenes, tmp_path):
    return write_annotated(scenes, tmp_path / "data")


def edit(folder, change):
    path = folder / "annotations.json"
    listed = json.loads(path.read_text())
    change(listed)
    path.write_text(json.dumps(listed))


def test_what_is_written_is_read(scenes, folder):
    found = read_annotated(folder)
    assert found.files == tuple(f"images/{file}" for file in scenes.files)
    for name in ("sizes", "names", "novel", "objects", "captions", "questions"):
        assert getattr(found, name) == getattr(scenes, name), name
    for row in range(3):
        assert torch.equal(found.masks[row], scenes.masks[row])
        assert float((found.image(row) - scenes.image(row)).abs().max()) <= 0.5 / 255 + 1e-6
    with pytest.raises(OutputError, match="exists"):
        write_annotated(scenes, folder)


def test_other_images_of_the_same_names_and_sizes(scenes, folder, tmp_path):
    other = tmp_path / "attacked"
    other.mkdir()
    for file in scenes.files:
        Image.new("RGB", (24, 24), "red").save((other / file).with_suffix(".bmp"))
    found = read_annotated(folder, images=other)
    assert torch.equal(found.image(1), torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 24, 24))
    assert found.captions == scenes.captions
    Image.new("RGB", (25, 24), "red").save((other / scenes.files[0]).with_suffix(".bmp"))
    with pytest.raises(DataError, match=r"25 x 24 pixels, but .*, which is annotated, is 24 x 24"):
        read_annotated(folder, images=other)
    (other / scenes.files[0]).with_suffix(".bmp").unlink()
    with pytest.raises(DataError, match=r"there is no image images/scene-00000\.png"):
        read_annotated(folder, images=other)


def test_masks_may_ignore_and_must_know_their_values(folder):
    mask = Image.new("L", (24, 24), 0)
    mask.putpixel((0, 0), 255)
    mask.putpixel((1, 0), 2)
    mask.save(folder / "masks" / "000000.png")
    found = read_annotated(folder).masks[0]
    assert Counter(found.flatten().tolist()) == {0: 574, IGNORED: 1, 2: 1}
    mask.putpixel((1, 0), 7)
    mask.save(folder / "masks" / "000000.png")
    with pytest.raises(DataError, match="has the value 7, which is no category's id"):
        read_annotated(folder).masks[0]
    Image.new("L", (20, 24)).save(folder / "masks" / "000000.png")
    with pytest.raises(DataError, match="is 20 x 24 pixels, but its image is 24 x 24"):
        read_annotated(folder).masks[0]


def mark(**values):
    return lambda listed: listed["annotations"].append({"image_id": 0, **values})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (mark(bbox=[20, 0, 8, 4], category_id=1), "reaches outside of its image, which is 24 x 24"),
        (mark(bbox=[2, 2, 0, 4], category_id=1), "has no area"),
        (mark(bbox=[2, 2, 4], category_id=1), "expected \\[x, y, width, height\\]"),
        (mark(bbox=[2, 2, 4, 4], category_id=9), "has the category 9"),
        (mark(caption="  "), "empty caption"),
        (lambda listed: listed["annotations"].append({"image_id": 77, "caption": "a"}), "the image 77"),
        (
            lambda listed: listed["questions"].append({"image_id": 0, "question": "", "answers": ["a"]}),
            "empty question",
        ),
        (lambda listed: listed["questions"].append({"image_id": 0, "question": "who?"}), "has no answers"),
        (lambda listed: listed["images"].append({"id": 5, "file_name": "gone.png"}), "there is no image .*gone.png"),
        (lambda listed: listed["images"].append({"id": 5, "file_name": "../gone.png"}), "lies outside"),
        (lambda listed: listed["images"][0].update(width=99), "99 x 24 pixels, but it is 24 x 24"),
        (lambda listed: listed["categories"].append({"id": 1, "name": "x"}), "are to be different"),
        (lambda listed: listed["categories"].append({"id": 3, "name": "background"}), "need names"),
        (lambda listed: listed.update(images=[]), "lists no image"),
        (lambda listed: listed.update(annotations={}), "no list of objects"),
    ],
)
def test_what_does_not_fit_is_told(folder, change, said):
    edit(folder, change)
    with pytest.raises(DataError, match=said):
        read_annotated(folder)


def test_coco_as_it_comes(folder):
    """Keys that are not read do no harm, and a box that is rounded over the edge is cut there."""
    edit(folder, mark(bbox=[20.5, 0, 4.0, 4], category_id=1, segmentation=[[1, 2, 3]], area=16.0, iscrowd=1))
    found = read_annotated(folder).objects[0]
    assert found.boxes[-1] == (20.5, 0.0, 24.0, 4.0)
    assert found.crowds == (len(found.boxes) - 1,)


def test_no_annotations_no_json(tmp_path):
    with pytest.raises(DataError, match=r"annotations\.json"):
        read_annotated(tmp_path)
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        read_annotated(tmp_path)
