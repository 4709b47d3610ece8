import random
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rainmer.data.depth import read_depth
from rainmer.errors import ConfigError, DatasetError, ImageError
from rainmer.frames.images import read_image, write_image
from rainmer.train.mixture import Batch, Mixture, SampleShape, make_sample
from rainmer.train.sources import (
    FramePair,
    PairedSource,
    PairsConfig,
    RainChoice,
    RenderedConfig,
    RenderedSource,
    Source,
    hold_out,
)


class Numbered(Source):
    """Frames that tell their image and visit by their levels."""

    def __init__(self, name, length, weight):
        self.name, self.length, self.weight = name, length, weight

    def __len__(self):
        return self.length

    def load(self, index, visit):
        frame = np.full((24, 32, 3), index, np.uint8)
        return FramePair(frame, frame + 1)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=1, max_size=4),
    st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_every_source_comes_by_its_weight_and_every_image_before_any_again(shapes, seed):
    sources = [Numbered(str(i), length, weight) for i, (length, weight) in enumerate(shapes)]
    mixture = Mixture(sources, seed=seed)
    draws = [mixture.draw(number) for number in range(1000)]
    total = sum(weight for _, weight in shapes)
    for number, (length, weight) in enumerate(shapes):
        own = [draw for draw in draws if draw.source == number]
        assert abs(len(own) - 1000 * weight / total) <= len(shapes)
        for start in range(0, len(own) - length + 1, length):
            epoch = own[start : start + length]
            assert sorted(draw.image for draw in epoch) == list(range(length))
            assert {draw.visit for draw in epoch} == {start // length}


def test_draws_do_not_depend_on_what_was_drawn_before():
    first = Mixture([Numbered("a", 7, 1), Numbered("b", 5, 2)], seed=3)
    second = Mixture([Numbered("a", 7, 1), Numbered("b", 5, 2)], seed=3)
    in_order = [first.draw(number) for number in range(3000)]
    assert second.draw(2345) == in_order[2345]
    assert second.draw(-5) == first.draw(-5)


def test_other_seeds_give_other_orders():
    draws = [
        [Mixture([Numbered("a", 50, 1)], seed=seed).draw(n).image for n in range(50)]
        for seed in (0, 1)
    ]
    assert draws[0] != draws[1]


def test_a_small_weight_still_comes():
    mixture = Mixture([Numbered("big", 9, 1e6), Numbered("small", 9, 1)], seed=0)
    assert Counter(mixture.draw(n).source for n in range(1000))[1] == 1


@pytest.mark.parametrize("sources", [[], [Numbered("a", 3, 0)], [Numbered("a", 3, -1)]])
def test_mixtures_of_nothing_are_refused(sources):
    with pytest.raises(DatasetError):
        Mixture(sources, seed=0)


def checkered(size_hw=(40, 60)):
    rows, columns = np.indices(size_hw)
    clean = np.stack((rows * 5, columns * 4, rows + columns), -1).astype(np.uint8)
    return FramePair((255 - clean), clean)


def test_a_sample_has_equal_places_in_both_frames():
    shape = SampleShape(crop=16, crops=5, query=24, negatives=3)
    sample = make_sample(checkered(), shape, random.Random(0))
    assert sample.rainy.shape == (5, 3, 16, 16)
    assert sample.query.shape == (3, 24, 24)
    assert sample.blurred.shape == (3, 3, 24, 24)
    assert torch.equal(255 - sample.rainy, sample.clean)
    expected = cv2.resize(checkered().rainy, (24, 24), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(sample.query.permute(1, 2, 0).numpy(), expected)


def test_crops_are_parts_of_the_frame_turned_up_down_or_left_right():
    pair = checkered((20, 20))
    sample = make_sample(pair, SampleShape(crop=20, crops=40), random.Random(1))
    whole = torch.from_numpy(pair.clean).permute(2, 0, 1)
    turned = {"none": whole, "up-down": whole.flip(1), "left-right": whole.flip(2)}
    seen = Counter(
        next(name for name, image in turned.items() if torch.equal(image, crop))
        for crop in sample.clean
    )
    assert seen.keys() == turned.keys()
    assert seen["none"] > seen["up-down"]  # two of four choices


def test_blurred_negatives_are_smoother_than_the_picture():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sample = make_sample(
        FramePair(noise, noise), SampleShape(32, query=32, negatives=4), random.Random(2)
    )
    assert sample.blurred.float().std() < 0.8 * sample.clean.float().std()


def test_frames_smaller_than_a_crop_are_refused():
    with pytest.raises(ImageError, match="60x40 pixels are too few for crops of 48"):
        make_sample(checkered(), SampleShape(crop=48), random.Random(0))


def test_a_batch_keeps_crops_of_a_frame_together():
    shape = SampleShape(crop=8, crops=3, query=16, negatives=1)
    mixture = Mixture([Numbered("a", 50, 1)], seed=0)
    batch = Batch.of([mixture.sample(number, shape) for number in range(4)])
    assert batch.rainy.shape == (12, 3, 8, 8)
    assert batch.blurred.shape == (4, 1, 3, 16, 16)
    levels = batch.rainy[:, 0, 0, 0].view(4, 3)
    assert (levels == levels[:, :1]).all()
    assert torch.equal(levels[:, 0], batch.query[:, 0, 0, 0])


def photos_in(folder, count=3, size_hw=(40, 48)):
    for i in range(count):
        frame = np.full((*size_hw, 3), 60 + 20 * i, np.uint8)
        write_image(folder / f"{i}.png", frame)
    return folder


def test_rendered_rain_is_decided_by_image_and_visit(tmp_path):
    config = RenderedConfig(
        images=str(photos_in(tmp_path)),
        rain={"day": RainChoice(), "night": RainChoice()},
        window=32,
    )
    source, again = (RenderedSource("photos", config, seed=0) for _ in range(2))
    pair = source.load(1, 0)
    assert pair.rainy.shape == pair.clean.shape == (32, 32, 3)
    assert (pair.rainy != pair.clean).any()
    assert np.array_equal(pair.rainy, again.load(1, 0).rainy)
    assert not np.array_equal(pair.rainy, source.load(1, 1).rainy)
    other = RenderedSource("photos", config, seed=1)
    assert not np.array_equal(pair.rainy, other.load(1, 0).rainy)


def test_a_rendering_serves_as_many_visits_as_asked(tmp_path):
    config = RenderedConfig(images=str(photos_in(tmp_path)), rain={"day": RainChoice()}, reuse=2)
    source = RenderedSource("photos", config)
    visits = [source.load(0, visit).rainy for visit in range(4)]
    assert np.array_equal(visits[0], visits[1])
    assert not np.array_equal(visits[1], visits[2])
    assert np.array_equal(visits[2], visits[3])
    fresh = RenderedSource("photos", config)  # as after an interruption
    assert np.array_equal(fresh.load(0, 3).rainy, visits[3])


def test_dry_pairs_are_equal(tmp_path):
    config = RenderedConfig(images=str(photos_in(tmp_path)), rain={"none": RainChoice()})
    pair = RenderedSource("photos", config).load(0, 0)
    assert np.array_equal(pair.rainy, pair.clean)


@pytest.mark.parametrize(
    ("window", "size_hw"), [(None, (20, 24)), (16, (16, 16)), (30, (30, 30)), (100, (40, 48))]
)
def test_photos_are_scaled_as_far_as_they_fill_the_window(tmp_path, window, size_hw):
    config = RenderedConfig(
        images=str(photos_in(tmp_path)), rain={"none": RainChoice()}, window=window, scale=0.5
    )
    assert RenderedSource("photos", config).load(0, 0).rainy.shape == (*size_hw, 3)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"rain": {"dusk": RainChoice()}}, ConfigError, "rain.dusk: no rain preset"),
        ({"rain": {}}, ConfigError, "at least one kind"),
        ({"rain": {"day": RainChoice(weight=0)}}, ConfigError, "at least one kind"),
        ({"rain": {"day": RainChoice(changes={"rate": 5})}}, ConfigError, "rate"),
        ({"files": "*.jpg"}, DatasetError, "no images"),
        ({"images": "nowhere"}, ImageError, "no folder nowhere"),
    ],
)
def test_wrong_sources_are_refused(tmp_path, changes, error, words):
    fields = {"images": str(photos_in(tmp_path)), "rain": {"day": RainChoice()}, **changes}
    with pytest.raises(error) as caught:
        RenderedSource("photos", RenderedConfig(**fields))
    assert words in str(caught.value)


def test_pairs_of_unequal_sizes_name_both(tmp_path):
    write_image(tmp_path / "input" / "a.png", np.zeros((8, 9, 3), np.uint8))
    write_image(tmp_path / "target" / "a.png", np.zeros((8, 8, 3), np.uint8))
    source = PairedSource("set", PairsConfig(root=str(tmp_path)))
    with pytest.raises(ImageError, match=r"is 9x8 pixels, but its target .* is 8x8"):
        source.load(0, 0)


def test_a_cache_reads_once(tmp_path):
    for part in ("input", "target"):
        write_image(tmp_path / part / "a.png", np.zeros((8, 8, 3), np.uint8))
    source = PairedSource("set", PairsConfig(root=str(tmp_path), cache=True))
    first = source.load(0, 0)
    (tmp_path / "input" / "a.png").unlink()
    assert source.load(0, 1) is first


def in_folders(folder, count, size_hw=(20, 24)):
    """Photos of which each has a colour of its own; names repeat from folder to folder."""
    for i in range(count):
        frame = np.full((*size_hw, 3), 2 * i, np.uint8)
        write_image(folder / f"{i % 3}" / f"{i // 3}.png", frame)
    return str(folder)


def colours(source):
    return [int(source.load(index, 0).clean[0, 0, 0]) for index in range(len(source))]


def test_photos_are_held_out_by_their_names(tmp_path):
    config = RenderedConfig(images=in_folders(tmp_path, 90), rain={"none": RainChoice()})
    source = RenderedSource("photos", config)
    everything = colours(source)
    (held_out,) = hold_out([Numbered("a", 50, 1), source], 0.2)
    first = colours(held_out)
    assert 9 < len(first) < 27
    assert colours(source) == [colour for colour in everything if colour not in first]
    assert (source.weight, held_out.name) == (len(source), "photos-held-out")
    in_folders(tmp_path, 96)  # six more photos: the others stay where they are
    (more,) = hold_out([RenderedSource("photos", config, seed=5)], 0.2)
    assert [colour for colour in colours(more) if colour < 180] == first
    assert set(colours(more)) >= set(first)


@pytest.mark.parametrize(("share", "held_out"), [(1e-6, 1), (0.999999, 39)])
def test_one_photo_at_least_is_on_either_side(tmp_path, share, held_out):
    config = RenderedConfig(images=in_folders(tmp_path, 40), rain={"none": RainChoice()}, weight=3)
    source = RenderedSource("photos", config)
    (part,) = hold_out([source], share)
    assert (len(part), len(source), source.weight) == (held_out, 40 - held_out, 3)


def test_of_few_photos_none_is_held_out(tmp_path, caplog):
    config = RenderedConfig(images=in_folders(tmp_path, 39), rain={"none": RainChoice()})
    source = RenderedSource("photos", config)
    with caplog.at_level("INFO"):
        assert hold_out([source], 0.0) == []
        assert caplog.messages == []
        assert hold_out([source], 0.5) == []
    assert caplog.messages == [
        "data.rendered.photos: 39 photos are fewer than 40, so none is held out for validation"
    ]
    assert len(source) == 39


def test_depth_and_boxes_stay_with_their_photo(tmp_path):
    photos, depths = tmp_path / "photos", tmp_path / "depth"
    in_folders(photos, 40)
    depths.mkdir()
    for path in photos.rglob("*.png"):
        name = path.relative_to(photos).with_suffix(".npy")
        (depths / name).parent.mkdir(exist_ok=True)
        colour = read_image(path)[0, 0, 0]
        np.save(depths / name, np.full((20, 24), 1.0 + colour, np.float32))
    rain = {"none": RainChoice()}
    source = RenderedSource("a", RenderedConfig(images=str(photos), depth=str(depths), rain=rain))
    for part in (source, *hold_out([source], 0.3)):
        for photo in part._photos:
            assert (read_depth(photo.depth) == 1.0 + read_image(photo.path)[0, 0, 0]).all()
