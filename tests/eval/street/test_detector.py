from pathlib import Path

import numpy as np
import pytest
import torch
from ultralytics import YOLO

from eval.street import CLASSES
from eval.street.detector import EMBEDDED, detector_file, detector_weights, save_detector
from eval.street.splits import TEST, write_split
from eval.street.train_detector import Recipe, Scenes, Training, augmented, batches, measure
from rainmer.errors import RainmerError, WeightsError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return detector_weights(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("file", EMBEDDED.values(), ids=EMBEDDED)
def test_the_shipped_files_are_small(file):
    assert file.stat().st_size <= 6_000_000


def test_embedded_detectors_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    files = {name: detector_file(name) for name in EMBEDDED}
    assert {Path(file).stem for file in files.values()} == {
        "street-detector",
        "street-rain-detector",
    }
    assert len(set(files.values())) == 2
    assert detector_file("yolov8n.pt") == "yolov8n.pt"


def test_the_detector_is_built_once(weights):
    made = weights.stat().st_mtime_ns
    assert detector_weights(weights.parents[1]) == weights
    assert weights.stat().st_mtime_ns == made


def test_the_detector_knows_the_classes(weights):
    assert tuple(YOLO(weights).names.values()) == CLASSES


def test_the_detector_finds_what_is_in_clean_test_scenes(weights, tmp_path):
    write_split(tmp_path, TEST[::16], processes=1, quiet=True)
    scores = measure(weights, tmp_path)
    assert scores["all"]["mAP50"] > 0.5
    assert scores["classes"]["car"] > 0.5
    assert {"day", "night"} <= scores.keys()


def test_bad_weights_are_refused_in_words(tmp_path):
    with pytest.raises(WeightsError, match="no file"):
        detector_weights(tmp_path, source=tmp_path / "none.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(EMBEDDED["street"].read_bytes()[:5000])
    with pytest.raises(WeightsError, match="is damaged"):
        detector_weights(tmp_path, source=damaged)
    other = tmp_path / "other.safetensors"
    save_detector(
        {"a": torch.zeros(2)}, other, architecture="yolo11n.yaml", names=["car"], facts={}
    )
    with pytest.raises(WeightsError, match="does not fit"):
        detector_weights(tmp_path, source=other)


@pytest.fixture
def scenes():
    images = np.zeros((4, 96, 160, 3), np.uint8)
    images[:, 30:60, 40:90] = 255
    boxes = [np.array([[2, 40, 30, 90, 60]], np.float32)] * 4
    return Scenes(images, boxes)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_follow_the_picture(scenes, seed):
    rng = np.random.default_rng(seed)
    image, boxes = augmented(rng, scenes.images[0], scenes.boxes[0], (48, 80))
    assert image.shape == (48, 80, 3)
    ((label, x0, y0, x1, y1),) = boxes
    assert label == 2
    inside = np.zeros((48, 80), bool)
    inside[round(y0) : round(y1), round(x0) : round(x1)] = True
    bright = image.mean(axis=2) > 165  # the padding has 158 at most
    assert (bright & inside).sum() / (bright | inside).sum() > 0.85


def test_a_picture_without_objects_stays_without(scenes):
    empty = np.zeros((0, 5), np.float32)
    _, boxes = augmented(np.random.default_rng(0), scenes.images[0], empty, (48, 80))
    assert boxes.shape == (0, 5)


def test_an_epoch_gives_each_scene_once(scenes):
    made = list(batches(scenes, np.random.default_rng(0), 2, (48, 80)))
    assert [batch["img"].shape for batch in made] == [(2, 3, 48, 80)] * 2
    assert made[0]["batch_idx"].tolist() == [0.0, 1.0]


def test_epochs_go_from_small_to_full_size():
    assert Recipe(epochs=14, extra=0).widths() == [320] * 10 + [480] * 2 + [640] * 2
    assert Recipe(epochs=1, extra=2).widths() == [640] * 3


def test_training_goes_on_where_it_stopped(scenes, tmp_path):
    recipe = Recipe(images=4, epochs=1, extra=1, batch=2)
    straight = Training(recipe)
    straight.run_epoch(scenes, 160, quiet=True)
    straight.save(tmp_path / "state.pt")
    resumed = Training(recipe)
    resumed.load(tmp_path / "state.pt")
    losses = [training.run_epoch(scenes, 160, quiet=True) for training in (straight, resumed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert np.isfinite(losses[0])
    good = (tmp_path / "state.pt").read_bytes()
    next(resumed.average.parameters()).data.fill_(float("nan"))
    with pytest.raises(RainmerError, match=r"is not finite after epoch 2, so .*state\.pt stays"):
        resumed.save(tmp_path / "state.pt")
    assert (tmp_path / "state.pt").read_bytes() == good
