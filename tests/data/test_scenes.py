"""Scenes are what their words, masks, boxes and answers say, and the same in whatever batch they are made."""

import re
from itertools import combinations

import pytest
import torch

from firmground.data.scenes import (
    COLOURS,
    GROUND_COLOURS,
    GROUNDS,
    KINDS,
    PLACES,
    SHAPES,
    SIZES,
    SYNONYMS,
    TEMPLATES,
    TEXTURES,
    Scenes,
    SceneWorld,
)
from firmground.data.scenes.shapes import REACH, fields
from firmground.errors import DataError

PALETTE = torch.tensor(list(COLOURS.values()))
NOUNS = {noun: shape for shape in SHAPES for noun in (shape, *SYNONYMS[shape])}
NOUN = re.compile("|".join(rf"\b{noun}\b" for noun in sorted(NOUNS, key=len, reverse=True)))
ALLOWED = {
    "count": ("one", "two", "three"), "count of": ("no", "one", "two", "three"), "colour": tuple(COLOURS),
    "texture": TEXTURES, "size": SIZES, "place": PLACES, "ground": tuple(GROUND_COLOURS), "ground kind": GROUNDS,
    "presence": ("yes", "no"), "coloured": ("yes", "no"), "relation": ("yes", "no"), "shape": SHAPES,
    "main shape": SHAPES,
}  # fmt: skip


@pytest.fixture(scope="module")
def alone() -> Scenes:
    return SceneWorld().scenes(160, seed=0)


@pytest.fixture(scope="module")
def several() -> Scenes:
    return SceneWorld(objects=(1, 3), captions=3).scenes(160, seed=1)


def same(one: Scenes, other: Scenes) -> bool:
    tensors = ("images", "masks", "labels")
    words = ("objects", "grounds", "captions", "questions", "classes")
    return all(torch.equal(getattr(one, n), getattr(other, n)) for n in tensors) and all(
        getattr(one, n) == getattr(other, n) for n in words
    )


def nouns(text):
    return [NOUNS[found] for found in NOUN.findall(text)]


def centre(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_scene_does_not_depend_on_its_batch(batch_size):
    world = SceneWorld(objects=(1, 3), size=37)
    whole = world.scenes(20, seed=3)
    start = 0
    for part in world.batches(20, seed=3, batch_size=batch_size):
        stop = start + len(part)
        assert torch.equal(part.images, whole.images[start:stop])
        assert torch.equal(part.masks, whole.masks[start:stop])
        assert part.objects == whole.objects[start:stop]
        assert part.captions == whole.captions[start:stop]
        assert part.questions == whole.questions[start:stop]
        start = stop
    assert start == 20


def test_a_seed_makes_the_scenes_and_moves_no_other_randomness():
    state = torch.get_rng_state()
    world = SceneWorld()
    assert same(world.scenes(8, seed=0), world.scenes(8, seed=0))
    assert not torch.equal(world.scenes(8, seed=0).images, world.scenes(8, seed=1).images)
    assert torch.equal(state, torch.get_rng_state())


def test_a_larger_picture_shows_the_same(several):
    large = SceneWorld(objects=(1, 3), captions=3, size=96).scenes(32, seed=1)
    assert large.captions == several.captions[:32]
    shrunk = torch.nn.functional.avg_pool2d(large.images, 2)
    assert (shrunk - several.images[:32]).abs().mean() < 0.03


def test_shapes_and_range_of_tensors(several):
    assert several.images.shape == (160, 3, 48, 48)
    assert several.masks.shape == (160, 48, 48)
    assert several.images.dtype == torch.float32
    assert several.images.min() >= 0
    assert several.images.max() <= 1
    assert several.labels.tolist() == [SHAPES.index(objects[0].shape) for objects in several.objects]
    assert set(several.labels.tolist()) == set(range(len(SHAPES)))
    assert {len(objects) for objects in several.objects} == {1, 2, 3}


def test_labels_count_in_the_classes_that_were_asked_for():
    scenes = SceneWorld(classes=("tree", "circle")).scenes(40, seed=0)
    assert {objects[0].shape: label for objects, label in zip(scenes.objects, scenes.labels.tolist(), strict=True)} == {
        "tree": 0,
        "circle": 1,
    }
    assert set(scenes.masks.unique().tolist()) == {0, 1, 2}


def test_every_shape_stays_within_its_circle_and_fills_a_part_of_it():
    line = torch.linspace(-REACH, REACH, fields().shape[-1])
    distance = torch.hypot(line[None], line[:, None])
    assert (fields()[:, distance > 1.0] > 0).all()
    assert ((fields() < 0).sum((1, 2)) > 0.2 * (distance < 1).sum()).all()


def test_shapes_differ_from_one_another():
    inside = fields() < 0
    for one, other in combinations(inside, 2):
        assert (one & other).sum() / (one | other).sum() < 0.93  # the hexagon and the circle are nearest


@pytest.mark.parametrize("name", ["alone", "several"])
def test_boxes_are_as_tight_as_can_be_and_do_not_overlap(name, request):
    scenes = request.getfixturevalue(name)
    for objects, mask in zip(scenes.objects, scenes.masks, strict=True):
        covered = torch.zeros_like(mask)
        for one in objects:
            x0, y0, x1, y1 = one.box
            assert 0 <= x0 < x1 <= 48
            assert 0 <= y0 < y1 <= 48
            inside = mask[y0:y1, x0:x1] == one.label + 1
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()
            covered[y0:y1, x0:x1] += 1
        assert covered.max() == 1
        assert not mask[covered == 0].any()


def test_the_main_object_is_the_largest(several):
    for objects in several.objects:
        widths = [one.box[2] - one.box[0] + one.box[3] - one.box[1] for one in objects if one.shape == objects[0].shape]
        assert max(widths) == widths[0]


def test_a_plain_object_has_the_colour_of_its_name(alone):
    checked = 0
    for objects, mask, image in zip(alone.objects, alone.masks, alone.images, strict=True):
        if objects[0].texture == "plain" and objects[0].size != "small":
            median = image[:, mask > 0].median(dim=1).values
            assert list(COLOURS)[int((PALETTE - median).norm(dim=1).argmin())] == objects[0].colour
            checked += 1
    assert checked > 12


def test_backgrounds_stand_out_from_objects(alone):
    for mask, image in zip(alone.masks, alone.images, strict=True):
        inner, outer = image[:, mask > 0].mean(1), image[:, mask == 0].mean(1)
        assert (inner - outer).norm() > 0.12


def test_places_and_sizes_are_those_of_the_pixels(alone):
    areas = {name: [] for name in SIZES}
    for (one,) in alone.objects:
        areas[one.size].append(max(one.box[2] - one.box[0], one.box[3] - one.box[1]))
        x, y = (v / 48 for v in centre(one.box))
        words = one.place.split()
        for axis, low, high in ((x, "left", "right"), (y, "top", "bottom")):
            assert axis < 0.48 if low in words else axis > 0.52 if high in words else 0.33 < axis < 0.67
    assert max(areas["small"]) < min(areas["large"])
    assert {one.place for (one,) in alone.objects} == set(PLACES)


@pytest.mark.parametrize("name", ["alone", "several"])
def test_captions_name_what_is_drawn_and_nothing_else(name, request):
    scenes = request.getfixturevalue(name)
    for objects, ground, captions in zip(scenes.objects, scenes.grounds, scenes.captions, strict=True):
        for caption in captions:
            assert nouns(caption) == [one.shape for one in objects]
            rest = caption.replace(ground.colour, "")
            assert {word for word in COLOURS if re.search(rf"\b{word}\b", rest)} <= {one.colour for one in objects}
            for size, words in {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}.items():
                if any(re.search(rf"\b{word}\b", caption) for word in words):
                    assert size in {one.size for one in objects}
            for texture, words in {"striped": ("strip",), "dotted": ("dot", "spot")}.items():
                if any(word in caption for word in words):
                    assert texture in {one.texture for one in objects}


def test_captions_read_well_and_vary(several):
    texts = [caption for captions in several.captions for caption in captions]
    assert len(set(texts)) > 0.95 * len(texts)
    for text in texts:
        assert not re.search(r"\b(an? an?|the an?)\b|[{}]|  |,,|\ba [aeiou]|\ban [^aeiou]", text), text


def test_captions_tell_left_from_right_and_above_from_below(several):
    told = 0
    for objects, captions in zip(several.objects, several.captions, strict=True):
        for caption in captions:
            found = re.search(r"to the left of|to the right of|above|below", caption)
            if found:
                (x, y), (u, v) = centre(objects[0].box), centre(objects[1].box)
                right = {"to the left of": x < u, "to the right of": x > u, "above": y < v, "below": y > v}
                assert right[found[0]]
                told += 1
    assert told > 30


def test_answers_are_right(several):
    seen = {}
    for objects, ground, questions in zip(several.objects, several.grounds, several.questions, strict=True):
        assert len({question.kind for question in questions}) == len(questions)
        for question in questions:
            seen.setdefault(question.kind, []).append(question.answer)
            assert question.text.endswith("?")
            assert question.answer in ALLOWED[question.kind]
            assert question.answer == answer(question, objects, ground), question
    assert set(seen) == set(KINDS)
    for kind in ("presence", "coloured", "relation"):
        assert 0.35 < seen[kind].count("yes") / len(seen[kind]) < 0.65


def answer(question, objects, ground):
    """The answer by the words of a question, not by how it was made."""
    text = question.text
    number = ("no", "one", "two", "three")
    named = nouns(text.replace("objects", "").replace("crosses", "cross")) or nouns(re.sub(r"s\b", "", text))
    hue = [name for name in COLOURS if re.search(rf"\b{name}\b", text)]
    mine = [one for one in objects if one.shape in named[:1]]
    match question.kind:
        case "count":
            return number[len(objects)]
        case "count of":
            return number[len(mine)]
        case "ground":
            return ground.colour
        case "ground kind":
            return ground.kind
        case "presence":
            return "yes" if mine else "no"
        case "main shape":
            return objects[0].shape
        case "shape":
            (one,) = (one for one in objects if one.colour == hue[0])
            return one.shape
    (one,) = mine
    if question.kind == "coloured":
        return "yes" if hue == [one.colour] else "no"
    if question.kind == "relation":
        (other,) = (other for other in objects if other.shape == named[1])
        (x, y), (u, v) = centre(one.box), centre(other.box)
        return "yes" if {"left": x < u, "right": x > u, "above": y < v, "below": y > v}[
            re.search("left|right|above|below", text)[0]
        ] else "no"  # fmt: skip
    return getattr(one, question.kind)


def test_one_scene_holds_its_part(several):
    scene = several[5]
    assert torch.equal(scene.image, several.images[5])
    assert scene.label == several.labels[5]
    assert scene.captions[0] == several.texts[5]
    assert len(scene.captions) == 3


def test_templates_have_one_place_for_a_class():
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 20
    assert all(template.count("{}") == 1 for template in TEMPLATES)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"classes": ("circle", "mug")}, "choose from: circle, square"),
        ({"classes": ()}, "one or more different shapes"),
        ({"classes": ("star", "star")}, "one or more different shapes"),
        ({"objects": (0, 2)}, "between 1 and 3 objects"),
        ({"objects": (2, 4)}, "between 1 and 3 objects"),
        ({"size": 16}, "at least 24 pixels, got 16"),
        ({"captions": 0}, "at least one caption"),
    ],
)
def test_bad_settings_are_refused_with_advice(settings, advice):
    with pytest.raises(DataError, match=advice):
        SceneWorld(**settings)


def test_bad_counts_are_refused_with_advice():
    with pytest.raises(DataError, match="at least one scene"):
        SceneWorld().scenes(0, seed=0)
    with pytest.raises(DataError, match="batch of at least one"):
        next(SceneWorld().batches(4, seed=0, batch_size=0))
