"""Rain on the images of ultralytics' data sets, and the trainer that puts it there."""

import hashlib
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset

import detection
from detection.yolo.augment import RainMixture, RainTrainer, Visit, Visits, rain_on
from rainmer.config import to_mapping
from rainmer.errors import ConfigError, RainmerError
from rainmer.frames.arrays import reverse_channels, to_batch, to_frames
from rainmer.frames.images import read_image, write_image
from rainmer.rain import PRESETS, RainRenderer
from tests.detection.conftest import make_frame

DATA = {"names": {0: "thing"}, "nc": 1, "channels": 3}


@pytest.fixture
def root(tmp_path):
    return write_images(tmp_path)


def write_images(root):
    for i in range(4):
        write_image(root / "images" / f"{i}.png", make_frame(48, 64, i))
        label = root / "labels" / f"{i}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text("0 0.5 0.5 0.4 0.4\n")
    return root


def make_dataset(root, rain, *, seed=0, mode="train", rain_val=False, **options):
    """Make a data set; without mosaics and colour changes, unless asked for."""
    plain = {"mosaic": 0.0, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0, "scale": 0, "translate": 0}
    args = get_cfg(overrides={"imgsz": 64, "fliplr": 0.0, **plain, **options})
    dataset = build_yolo_dataset(args, str(root / "images"), 2, DATA, mode=mode)
    rain_on(dataset, RainMixture.of(rain, on_val=rain_val), seed=seed, root=root)
    return dataset


def samples_of(dataset, epoch=0):
    return dataset.__getitems__([Visit(i, epoch) for i in range(len(dataset))])


def pictures_of(dataset, epoch=0):
    return torch.stack([sample["img"] for sample in samples_of(dataset, epoch)])


def digests(loader):
    return {
        (path, hashlib.sha256(image.numpy().tobytes()).hexdigest())
        for _, batch in zip(range(4), loader, strict=False)
        for path, image in zip(batch["im_file"], batch["img"], strict=True)
    }


def make_loader(dataset, workers):
    visits = Visits(
        BatchSampler(RandomSampler(range(4)), 2, drop_last=False), SimpleNamespace(start_epoch=5)
    )
    return DataLoader(
        dataset,
        batch_sampler=visits,
        num_workers=workers,
        collate_fn=dataset.collate_fn,
    )


def test_rain_does_not_depend_on_workers(root):
    rain = {"day": 1, "streaks": 1, "none": 1}
    alone = digests(make_loader(make_dataset(root, rain), 0))
    assert len({path for path, _ in alone}) == 4
    assert digests(make_loader(make_dataset(root, rain), 2)) == alone


def test_a_spawned_worker_gets_the_rain_too(root):
    dataset = make_dataset(root, {"streaks": 1})
    there = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(pictures_of(there, 1), pictures_of(dataset, 1))


def test_pixels_are_those_of_the_renderer(root):
    (picture, *_) = pictures_of(make_dataset(root, {"day": 1}, seed=7), epoch=3)
    clean = read_image(root / "images" / "0.png")
    rendering = RainRenderer(PRESETS["day"], seed=7)(to_batch([clean]), ["images/0.png/3"])
    (expected,) = to_frames(rendering.rainy)
    np.testing.assert_array_equal(picture[:, 8:56].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("cache", [False, "ram"])
def test_rain_differs_by_epoch_and_seed_and_stays_with_the_image(root, cache):
    dataset = make_dataset(root, {"streaks": 1}, cache=cache)
    first = pictures_of(dataset)
    assert not torch.equal(pictures_of(dataset, 1), first)
    assert torch.equal(pictures_of(dataset), first)
    assert not torch.equal(pictures_of(make_dataset(root, {"streaks": 1}, seed=1)), first)
    dry = pictures_of(make_dataset(root, {"none": 1}, cache=cache))
    assert all(not torch.equal(a, b) for a, b in zip(first, dry, strict=True))


def test_a_moved_data_set_gets_the_same_rain(root, tmp_path_factory):
    there = write_images(tmp_path_factory.mktemp("elsewhere"))
    rain = {"day": 1, "none": 1}
    assert torch.equal(
        pictures_of(make_dataset(there, rain)), pictures_of(make_dataset(root, rain))
    )


def test_boxes_stay(root):
    rainy, dry = (samples_of(make_dataset(root, {kind: 1})) for kind in ("day", "none"))
    for one, other in zip(rainy, dry, strict=True):
        assert torch.equal(one["bboxes"], other["bboxes"])
        assert torch.equal(one["cls"], other["cls"])


def test_mosaics_are_of_rainy_images_rendered_once(root, monkeypatch):
    rendered = []
    render = RainMixture.render
    monkeypatch.setattr(
        RainMixture, "render", lambda *args: rendered.append(args[2]) or render(*args)
    )
    samples_of(make_dataset(root, {"streaks": 1}, mosaic=1.0), epoch=2)
    assert sorted(rendered) == [f"images/{i}.png/2" for i in range(4)]


def test_dry_images_are_what_ultralytics_loads(root):
    dataset = make_dataset(root, {"none": 1, "day": 0})
    image, before, after = dataset.load_image(0)
    np.testing.assert_array_equal(reverse_channels(image), read_image(root / "images" / "0.png"))
    assert before == after == (48, 64)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(0, 5))
def test_the_share_of_dry_images_is_as_asked_for(seed, dry, wet):
    mixture = RainMixture.of({"none": dry, "day": wet})
    frame = np.zeros((1, 1, 3), np.uint8)
    calls = []
    count = 200
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detection.yolo.augment.RainRenderer", lambda *_, **__: _Noted(calls))
        for number in range(count):
            mixture.render(frame, str(number), seed)
    assert abs(len(calls) / count - wet / (wet + dry)) < 0.2  # more than five deviations


class _Noted:
    def __init__(self, calls):
        self.calls = calls

    def __call__(self, batch, names):
        self.calls.append(names)
        return SimpleNamespace(rainy=batch)


def test_visits_carry_the_epoch_also_after_a_restart():
    trainer = SimpleNamespace(start_epoch=2)
    visits = Visits([[0, 1], [2]], trainer)
    assert len(visits) == 2
    batches = iter(visits)
    assert [next(batches) for _ in range(3)] == [
        [Visit(0, 2), Visit(1, 2)],
        [Visit(2, 2)],
        [Visit(0, 3), Visit(1, 3)],
    ]
    trainer.epoch = 9
    assert next(iter(visits))[0] == Visit(0, 9)


@pytest.mark.parametrize(("rain_val", "changes"), [(False, False), (True, True)])
def test_validation_images_get_rain_only_if_asked_for(root, rain_val, changes, monkeypatch):
    dry = make_dataset(root, {"none": 1}, mode="val").load_image(0)[0]
    trainer = RainTrainer.bind({"streaks": 1}, rain_val=rain_val)
    plain = build_yolo_dataset(get_cfg(overrides={"imgsz": 64}), str(root), 2, DATA, mode="val")
    monkeypatch.setattr(trainer.__mro__[2], "build_dataset", lambda *_: plain)
    stand_in = object.__new__(trainer)
    stand_in.data, stand_in.args = {"path": root}, SimpleNamespace(seed=0)
    images = [stand_in.build_dataset(str(root), "val").load_image(0)[0] for _ in range(2)]
    np.testing.assert_array_equal(*images)
    assert (not np.array_equal(images[0], dry)) == changes


def test_the_same_rain_makes_the_same_class():
    one = detection.RainTrainer.bind({"day": 1, "none": 2})
    assert one is RainTrainer.bind({"day": 1, "none": 2})
    assert one is not RainTrainer.bind({"day": 1, "none": 3})
    assert one.__name__ == "RainDetectionTrainer"
    assert RainTrainer.bind({"day": 1}, "pose").__name__ == "RainPoseTrainer"


def test_rain_may_come_from_a_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("rate_mm_h: 5\nlight: night\n")
    (config,) = RainMixture.of({str(file): 1}).kinds
    changed = to_mapping(PRESETS["day"]) | {"rate_mm_h": 5.0, "light": "night"}
    assert to_mapping(config) == changed


def test_mistakes_are_refused():
    with pytest.raises(RainmerError, match="no task 'classify'"):
        RainTrainer.bind({"day": 1}, "classify")
    with pytest.raises(ConfigError, match="one above 0"):
        RainTrainer.bind({})
    mixture = RainMixture.of({"day": 1})
    with pytest.raises(RainmerError, match="rain needs colour images"):
        rain_on(SimpleNamespace(channels=1), mixture, seed=0, root=Path())


def test_several_gpus_need_a_process_each(monkeypatch):
    trainer = RainTrainer.bind({"day": 1})
    base = trainer.__mro__[2]
    monkeypatch.setattr(base, "__init__", lambda self: setattr(self, "ddp", True))
    with pytest.raises(RainmerError, match="torchrun"):
        trainer()
