"""Samples that a device renders and cuts: those that loading makes, in the same order."""

import contextlib
import random

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rainmer.data.depth import write_depth
from rainmer.errors import ConfigError, DatasetError, RainmerError
from rainmer.frames.images import write_image
from rainmer.train import rendering
from rainmer.train.config import DataConfig
from rainmer.train.loader import Loader
from rainmer.train.mixture import Batch, Mixture, make_sample
from rainmer.train.recipes import Recipes, SampleShape, draw_cuts
from rainmer.train.rendering import render_ahead, render_batches
from rainmer.train.sources import (
    FramePair,
    PairedSource,
    PairsConfig,
    Plan,
    RainChoice,
    RenderedConfig,
    RenderedSource,
)
from tests.rainmer.train.conftest import picture
from tests.rainmer.train.test_run import losses, run

CPU = torch.device("cpu")
CLASSES = ("car", "person")
SHAPE = SampleShape(16, crops=3, query=24, negatives=2, classes=2)
KINDS = {
    "day-heavy": RainChoice(),
    "wet": RainChoice(
        preset="day",
        changes={"lens_drops": [4, 40], "windscreen_drops": [200, 800], "spray_per_km": [5, 40]},
    ),
    "night": RainChoice(),
    "streaks": RainChoice(),
    "layers": RainChoice(),
    "none": RainChoice(),
}


@pytest.fixture
def mixture(tmp_path, photos, pairs):
    """Photos of which one cannot be read and one is small, photos with depth maps, and pairs."""
    (photos / "broken.png").write_bytes(b"no image")
    write_image(photos / "small.png", picture(9, (20, 31)))
    for i in range(3):
        write_image(tmp_path / "mapped" / f"{i}.png", picture(i + 20))
        rows = np.linspace(50.0, 3.0, 48, dtype=np.float32)
        (tmp_path / "depth").mkdir(exist_ok=True)
        write_depth(tmp_path / "depth" / f"{i}.png", np.repeat(rows[:, None], 56, 1))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "0.txt").write_text("0 0.3 0.4 0.4 0.5\n1 0.7 0.6 0.3 0.4\n")
    shared = {"rain": KINDS, "window": 40, "frame_width": (300.0, 900.0), "scale": (0.8, 1.4)}
    plain = RenderedConfig(images=str(photos), reuse=2, **shared)
    mapped = RenderedConfig(
        images=str(tmp_path / "mapped"),
        depth=str(tmp_path / "depth"),
        annotations=str(tmp_path / "labels"),
        names=CLASSES,
        **shared,
    )
    sources = [
        RenderedSource("photos", plain),
        RenderedSource("mapped", mapped, classes=CLASSES),
        PairedSource("pairs", PairsConfig(root=str(pairs))),
    ]
    return Mixture(sources, seed=1)


def read(mixture, shape=SHAPE, count=8, **options):
    numbers = (range(3 * i, 3 * i + 3) for i in range(count))
    with contextlib.closing(Loader(mixture, max_unreadable=0.5, **options)) as loader:
        return list(loader.batches(numbers, shape)), loader.failures


def assert_same_samples(batches, expected):
    """Crops, queries and blurred pictures are equal but for roundings of single levels."""
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        for own, wanted in zip(batch[:5], other[:5], strict=True):
            assert own.shape == wanted.shape
            assert own.dtype == torch.uint8
            apart = (own.int() - wanted.int()).abs()
            assert apart.numel() == 0 or apart.max() <= 1
            assert (apart > 0).sum() <= 1e-3 * apart.numel()
        assert (batch.boxes is None) == (other.boxes is None)
        for own, wanted in zip(batch.boxes or (), other.boxes or (), strict=True):
            assert torch.equal(own, wanted)


@pytest.mark.parametrize(
    "options",
    [{"threads": 0}, {"threads": 2}, {"processes": 1}],
    ids=["alone", "threads", "processes"],
)
def test_a_device_makes_the_samples_of_the_loader(mixture, options):
    expected, failures = read(mixture, threads=0)
    batches, own = read(mixture, renders_on=CPU, **options)
    assert own == failures
    assert list(failures) == ["image 6 of photos"]
    assert any(len(batch.boxes.boxes) for batch in batches)
    assert_same_samples(batches, expected)


def test_a_thread_makes_them_ahead(mixture):
    """As on a GPU; it ends when its batches are no longer wanted, and gives its errors."""
    expected, _ = read(mixture, threads=0)
    recipes = [mixture_recipes(mixture, i) for i in range(8)]
    assert_same_samples(list(render_ahead(recipes, SHAPE, CPU, 6, ahead=True)), expected)

    def endless():
        while True:
            yield recipes[0]

    with contextlib.closing(render_ahead(endless(), SHAPE, CPU, 6, ahead=True)) as batches:
        assert_same_samples([next(batches)], expected[:1])

    def failing():
        yield from recipes[:2]
        raise DatasetError("too many")

    batches = render_ahead(failing(), SHAPE, CPU, 512, ahead=True)
    assert_same_samples([next(batches), next(batches)], expected[:2])
    with pytest.raises(DatasetError, match="too many"):
        next(batches)


def mixture_recipes(mixture, batch):
    parts = []
    for number in range(3 * batch, 3 * batch + 3):
        for attempt in range(9):
            with contextlib.suppress(RainmerError):
                parts.append(mixture.recipe(number + (attempt << 40), SHAPE))
                break
    return Recipes.join(parts)


@given(
    sides=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    crops=st.integers(1, 3),
    query=st.integers(1, 40),
    negatives=st.integers(0, 3),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_cutting_is_that_of_opencv(sides, crops, query, negatives, seed):
    rainy, clean = np.random.default_rng(seed).integers(0, 256, (2, *sides, 3), dtype=np.uint8)
    shape = SampleShape(min(sides), crops, query, negatives)
    sample = make_sample(FramePair(rainy, clean), shape, random.Random(seed))
    recipes = Recipes.of(Plan(clean, rainy), draw_cuts(sides, shape, random.Random(seed)), None)
    assert_same_samples(render_batches([recipes], shape, CPU), [Batch.of([sample])])


@given(st.floats(0.5, 2.0))
def test_weights_are_those_that_opencv_rounds_to(sigma):
    """A bright column of a picture shows the sums of the weights: what one column adds."""
    step = np.zeros((31, 31), np.uint8)
    step[:, 15:] = 255
    blurred = cv2.GaussianBlur(step, (11, 11), sigma)[15, 9:21].astype(float)
    weights = np.cumsum([0, *rendering._weights(sigma)]) / 256
    assert np.abs(blurred - 255 * weights).max() <= 0.5


def test_the_first_batches_come_soon_and_windows_are_bounded(mixture):
    recipes = [mixture_recipes(mixture, i) for i in range(3)] * 10
    sizes = [len(group) for group in rendering._groups(recipes, 12, rendering.threading.Event())]
    assert sizes == [1, 2, *[4] * 6, 3]


def test_windows_of_a_size_and_a_structure_are_rendered_in_one_call(mixture):
    samples = [recipe for i in range(40) for recipe in mixture_recipes(mixture, i).samples]
    groups = list(rendering._chunks(samples, CPU))
    assert sorted(number for group in groups for number in group) == list(range(len(samples)))
    kinds = [
        {(s.size_hw, s.rain and s.rain.config.structure) for s in map(samples.__getitem__, group)}
        for group in groups
    ]
    assert all(len(kind) == 1 for kind in kinds)
    assert len(groups) == len(set.union(*kinds)) < len(samples) / 5


def test_a_visit_is_rendered_as_its_rendering(photos):
    config = RenderedConfig(images=str(photos), rain={"day": RainChoice()}, window=40, reuse=2)
    source = RenderedSource("photos", config)
    plans = [source.plan(0, visit) for visit in range(3)]
    assert plans[0].rain == plans[1].rain != plans[2].rain
    assert np.array_equal(plans[0].clean, plans[1].clean)
    assert np.array_equal(plans[1].rendered().rainy, source.load(0, 1).rainy)


@pytest.mark.slow
def test_a_run_may_change_where_it_renders(tmp_path, run_mapping, photos):
    run_mapping["data"]["rendered"] = {
        "photos": {"images": str(photos), "rain": {"day": {}, "night": {}}, "window": 40}
    }
    run(run_mapping, tmp_path / "whole")
    run_mapping["data"].update(rendering="device", rendering_ahead=5)
    run(run_mapping, tmp_path / "parts", max_steps=3)
    run_mapping["data"].update(rendering="loader")
    run(run_mapping, tmp_path / "parts", max_steps=1)
    run_mapping["data"].update(rendering="device")
    run(run_mapping, tmp_path / "parts")
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


def test_a_device_without_memory_is_one_line(mixture, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(rendering, "render_mixed", full)
    with pytest.raises(RainmerError, match=r"lower data\.rendering_ahead"):
        read(mixture, renders_on=CPU, threads=0)


def test_windows_ahead_are_above_0():
    with pytest.raises(ConfigError, match=r"data\.rendering_ahead is 0"):
        DataConfig(rendering_ahead=0)
