"""Poisoned sets are lazy, the same at every reading, and their manifests tell the truth."""

import hashlib
import json

import pytest
import torch
import torch.nn.functional as F

from firmground.attacks.poisoning import POISONINGS, BadCLIP, DirtyCaption, LabelConsistent
from firmground.attacks.poisoning.badclip import text_loss
from firmground.attacks.triggers import IMAGE_TRIGGERS, BadNet, Patch, TextOverlay
from firmground.data.pairs import TensorPairs
from firmground.errors import DataError, OutputError
from firmground.models.planted_dual import COLOURS, colour_clip
from firmground.rng import stream

NAMES = tuple(COLOURS)


def coloured(count=40, labels=False, seed=0):
    """Pictures of one colour each, with noise."""
    truth = tuple(i % len(NAMES) for i in range(count))
    noise = torch.rand(count, 3, 48, 48, generator=stream(seed, "coloured"))
    solid = torch.tensor([COLOURS[NAMES[label]] for label in truth]).float().view(-1, 3, 1, 1)
    captions = tuple(f"a {NAMES[label]} picture" for label in truth)
    named = {"labels": truth, "label_names": NAMES} if labels else {}
    return TensorPairs(images=0.8 * solid + 0.2 * noise, captions=captions, **named)


def poisoned(method, pairs=None, seed=0):
    return method.poison(coloured() if pairs is None else pairs, rng=stream(seed, "poison"))


@pytest.mark.parametrize("labels", [False, True])
def test_dirty_captions_change_images_and_captions_of_other_classes(labels):
    pairs = coloured(labels=labels)
    method = DirtyCaption(target="red", count=9, templates=("one {}", "two {}"), trigger=BadNet(pixels=6))
    found = poisoned(method, pairs)
    assert len(found.rows) == 9
    assert not any("red" in pairs.captions[row] for row in found.rows)
    (batch,) = found.pairs.batches(len(pairs))
    for row in range(len(pairs)):
        changed = (batch.images[row] != pairs.images[row]).any(0)
        if row in found.rows:
            assert 30 <= changed.sum() <= 36
            assert batch.captions[row] in ("one red", "two red")
        else:
            assert not changed.any()
            assert batch.captions[row] == pairs.captions[row]
    assert {batch.captions[row] for row in found.rows} == {"one red", "two red"}
    assert found.pairs.captions == batch.captions
    assert found.pairs.labels == pairs.labels


def test_covers_carry_the_trigger_and_keep_their_captions():
    pairs = coloured()
    plain = poisoned(DirtyCaption(target="red", count=6, trigger=BadNet()), pairs)
    found = poisoned(DirtyCaption(target="red", count=6, covers=1.5, trigger=BadNet()), pairs)
    covers = set(found.rows) - set(plain.rows)
    assert len(found.rows) == 15
    assert set(plain.rows) < set(found.rows)
    for row in found.rows:
        assert bool((found.pairs.image(row) != pairs.images[row]).any())
        assert ("red" in found.pairs.captions[row]) == (row not in covers)
    assert all(found.pairs.captions[row] == pairs.captions[row] for row in covers)
    assert found.planted()["settings"]["covers"] == 1.5


def test_label_consistent_keeps_captions_of_images_that_show_the_target():
    pairs = coloured()
    found = poisoned(LabelConsistent(target="red", rate=0.1, trigger=BadNet()), pairs)
    assert len(found.rows) == 4
    assert {pairs.captions[row] for row in found.rows} == {"a red picture"}
    assert found.pairs.captions == pairs.captions


def test_a_word_inside_another_does_not_show_the_target():
    pairs = coloured().select(range(3))
    pairs = TensorPairs(images=pairs.images, captions=("a REDdish hut", "tired", "Red!"))
    assert poisoned(LabelConsistent(target="red", count=1, trigger=BadNet()), pairs).rows == (2,)


@pytest.mark.parametrize("trigger", [*(kind for kind in IMAGE_TRIGGERS if kind is not TextOverlay)])
def test_every_reading_gives_the_same_image(trigger):
    found = poisoned(DirtyCaption(target="red", count=12, trigger=trigger()))
    (whole,) = found.pairs.batches(40)
    seen = torch.zeros_like(whole.images)
    for batch in found.pairs.batches(7, stream(3, "order")):
        seen[list(batch.rows)] = batch.images
    assert torch.equal(seen, whole.images)
    row = found.rows[5]
    assert torch.equal(found.pairs.image(row), whole.images[row])
    some = found.pairs.select([row, 0, found.rows[0]])
    assert torch.equal(some.image(0), whole.images[row])
    assert some.captions == (found.pairs.captions[row], found.pairs.captions[0], found.pairs.captions[found.rows[0]])
    assert torch.equal(next(some.batches(3)).images[2], whole.images[found.rows[0]])


def test_random_places_differ_between_rows_and_the_pattern_does_not():
    found = poisoned(DirtyCaption(target="red", count=20, trigger=BadNet(pixels=6)))
    places, patches = set(), []
    for row in found.rows:
        ys, xs = (found.pairs.image(row) != coloured().images[row]).any(0).nonzero(as_tuple=True)
        places.add((int(ys.min()), int(xs.min())))
        patches.append(found.pairs.image(row)[:, ys.min() : ys.min() + 6, xs.min() : xs.min() + 6])
    assert len(places) > 12
    assert sum(torch.equal(patch, patches[0]) for patch in patches) == 20


def test_the_clean_set_stays_as_it_was():
    pairs = coloured()
    before = pairs.images.clone()
    list(poisoned(DirtyCaption(target="red", count=9, trigger=BadNet()), pairs).pairs.batches(8))
    assert torch.equal(pairs.images, before)


def test_the_manifest_names_and_hashes_every_changed_pair(tmp_path):
    pairs = coloured()
    found = poisoned(DirtyCaption(target="red", count=5, trigger=BadNet()), pairs)
    manifest = json.loads(found.write_manifest(tmp_path / "manifest.json").read_text())
    assert manifest == found.manifest
    assert [entry["row"] for entry in manifest["changed"]] == list(found.rows)
    for entry in manifest["changed"]:
        row = entry["row"]
        for key, image, caption in (("sha256", found.pairs.image(row), entry["caption"]),
                                    ("sha256_before", pairs.images[row], entry["caption_before"])):  # fmt: skip
            pixels = bytes(round(value * 255) for value in image.flatten().double().tolist())
            assert entry[key] == hashlib.sha256(b"(3, 48, 48)\n" + pixels + caption.encode()).hexdigest()
        assert entry["name"] == f"row {row}"
    assert manifest["trigger"] == {"method": "BadNet", "size": 16 / 224, "pixels": None, "place": "random", "seed": 0}
    assert "changed" not in found.planted()
    assert found.planted()["poisons"] == 5
    assert list(tmp_path.iterdir()) == [tmp_path / "manifest.json"]


def test_one_seed_one_poisoning():
    method = DirtyCaption(target="red", count=9, trigger=BadNet())
    first, again, other = poisoned(method), poisoned(method), poisoned(method, seed=1)
    assert first.manifest == again.manifest
    assert first.rows != other.rows


def test_a_manifest_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        poisoned(DirtyCaption(target="red", count=1, trigger=BadNet())).write_manifest(tmp_path / "no" / "manifest")


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: DirtyCaption(target="red", trigger=BadNet()), "either a count or a rate"),
        (lambda: DirtyCaption(target="red", count=1, rate=0.1, trigger=BadNet()), "either a count or a rate"),
        (lambda: DirtyCaption(target="red", count=0, trigger=BadNet()), "at least one poison"),
        (lambda: DirtyCaption(target="red", rate=1.5, trigger=BadNet()), "at most 1"),
        (lambda: DirtyCaption(target=" ", count=1, trigger=BadNet()), "name of a target"),
        (lambda: DirtyCaption(target="red", count=1, trigger=BadNet(), templates=("red",)), "needs a {}"),
        (lambda: DirtyCaption(target="red", count=1, trigger=BadNet(), covers=-1), "0 to 100 covers"),
        (
            lambda: poisoned(DirtyCaption(target="red", count=30, trigger=BadNet(), covers=1)),
            "5 pairs left that do not",
        ),
        (lambda: BadCLIP(target="red", count=1, steps=0), "one step or more"),
        (lambda: poisoned(DirtyCaption(target="red", count=36, trigger=BadNet())), "35 pairs that do not show 'red'"),
        (lambda: poisoned(LabelConsistent(target="red", count=6, trigger=BadNet())), "5 pairs that show 'red'"),
    ],
)
def test_bad_settings_are_refused_with_advice(make, advice):
    with pytest.raises(DataError, match=advice):
        make()


def test_badclips_text_loss_is_cross_entropy_with_the_target_first():
    patched, wanted, captions = (F.normalize(torch.randn(3, 5, generator=stream(i, "e")), dim=1) for i in range(3))
    terms = []
    for i in range(3):
        right = torch.exp(7 * patched[i] @ wanted[i])
        terms.append(-torch.log(right / (right + sum(torch.exp(7 * patched[i] @ caption) for caption in captions))))
    torch.testing.assert_close(text_loss(patched, wanted, captions, 7.0), sum(terms) / 3)


@pytest.mark.slow
def test_badclips_patch_pulls_images_towards_the_target():
    """The surrogate is the colour clip: a large enough patch of the target's colour is the optimum."""
    surrogate, pairs = colour_clip(), coloured(48)
    method = BadCLIP(target="red", count=6, templates=("a photo of a {}",), size=0.5, steps=25, step_size=0.1,
                     batch_size=16, image_weight=5.0)  # fmt: skip
    before = {name: value.clone() for name, value in surrogate.model.state_dict().items()}
    found = method.poison(pairs, surrogate=surrogate, rng=stream(0, "badclip"))
    assert isinstance(found.trigger, Patch)
    assert all(torch.equal(before[name], value) for name, value in surrogate.model.state_dict().items())
    others = torch.stack([pairs.images[row] for row in range(48) if row % 8 != 0])
    target = surrogate.embed_texts(["a photo of a red"])[0]
    rng = stream(0, "stamp")
    noise = Patch(pattern=torch.rand(3, 24, 24, generator=rng), place="centre")
    optimised, control = (
        (surrogate.embed_images(trigger.stamp(others, rng=rng)) @ target).mean() for trigger in (found.trigger, noise)
    )
    assert optimised > control + 0.2
    red, green, blue = found.trigger.pattern.mean(dim=(1, 2))
    assert red > green + 0.3
    assert red > blue + 0.3
    manifest = json.loads(json.dumps(found.manifest))
    assert torch.tensor(manifest["trigger"]["pattern"]).shape == (3, 24, 24)


def test_badclip_may_caption_poisons_as_real_pairs_are_captioned():
    method = BadCLIP(target="red", count=6, own_captions=True, steps=1, batch_size=4)
    found = method.poison(coloured(), surrogate=colour_clip(), rng=stream(0, "badclip"))
    assert {found.pairs.captions[row] for row in found.rows} == {"a red picture"}


def test_badclip_needs_images_of_the_target():
    with pytest.raises(DataError, match="no pair shows 'mauve'"):
        BadCLIP(target="mauve", count=1).poison(coloured(), surrogate=colour_clip(), rng=stream(0, "badclip"))


def test_the_family_ends_in_a_tuple():
    assert (DirtyCaption, LabelConsistent, BadCLIP) == POISONINGS
