"""The measuring harness; test_detect_command.py shows that it equals `yolo val`."""

import numpy as np
import pytest
import torch
import yaml

from detection.yolo.harness import ValidationHarness
from rainmer.errors import RainmerError


@pytest.fixture(scope="module")
def yolo_folder(tmp_path_factory):
    """A very small YOLO with random weights, biased to see things, saved and exported."""
    from ultralytics import YOLO
    from ultralytics.utils import ROOT

    folder = tmp_path_factory.mktemp("yolo")
    content = yaml.safe_load((ROOT / "cfg/models/v8/yolov8.yaml").read_text())
    content |= {"nc": 3, "scales": {"n": [0.33, 0.0625, 256]}}
    (folder / "yolov8n-tiny.yaml").write_text(yaml.safe_dump(content))
    torch.manual_seed(0)
    yolo = YOLO(str(folder / "yolov8n-tiny.yaml"))
    for layer in yolo.model.model[-1].cv3:
        torch.nn.init.normal_(layer[-1].weight, std=0.5)
    yolo.save(folder / "tiny.pt")
    YOLO(folder / "tiny.pt").export(format="torchscript", imgsz=96, batch=2)
    return folder


def frames(*sizes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_batches_hold_similar_shapes_and_every_image_once(yolo_folder):
    harness = ValidationHarness(str(yolo_folder / "tiny.pt"), imgsz=96, batch=3)
    sizes = [(100, 50), (40, 80), (64, 64), (90, 45), (30, 60), (64, 60)]
    plan = harness.plan(sizes)
    assert sorted(i for batch in plan for i in batch.indices) == list(range(6))
    wide, tall = plan[0], plan[-1]
    assert wide.input_hw[1] > wide.input_hw[0] or wide.input_hw == (128, 128)
    assert tall.input_hw[0] >= tall.input_hw[1]
    assert all(side % 32 == 0 for batch in plan for side in batch.input_hw)
    assert harness.plan([]) == []


def test_boxes_lie_in_their_frames_whatever_the_batch(yolo_folder):
    harness = ValidationHarness(str(yolo_folder / "tiny.pt"), imgsz=96)
    images = frames((70, 100), (33, 95), (96, 48))
    together = harness.detect(images, (96, 128))
    for image, found in zip(images, together, strict=True):
        alone = harness.detect([image], (96, 128))[0]
        np.testing.assert_allclose(alone.boxes_xyxy, found.boxes_xyxy, atol=1e-3)
        assert len(found) > 0
        height, width = image.shape[:2]
        assert (found.boxes_xyxy >= 0).all()
        assert (found.boxes_xyxy <= [width, height, width, height]).all()
        assert (np.diff(found.scores) <= 0).all()
    assert harness.detect([], (96, 96)) == []


def test_an_export_of_fixed_size_gives_what_the_network_gives(yolo_folder):
    exported = ValidationHarness(str(yolo_folder / "tiny.torchscript"), imgsz=640)
    assert (exported.imgsz, exported.batch) == (96, 2)
    native = ValidationHarness(str(yolo_folder / "tiny.pt"), imgsz=96)
    images = frames((80, 96))  # one frame: the rest of the exported batch is filled
    assert [batch.input_hw for batch in exported.plan([(80, 96)])] == [(96, 96)]
    ours, theirs = (h.detect(images, (96, 96))[0] for h in (exported, native))
    np.testing.assert_allclose(ours.boxes_xyxy, theirs.boxes_xyxy, atol=0.05)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-3)


def test_fingerprint_follows_weights_and_settings(yolo_folder):
    weights = str(yolo_folder / "tiny.pt")
    base = ValidationHarness(weights, imgsz=96).fingerprint
    assert ValidationHarness(weights, imgsz=96).fingerprint == base
    assert ValidationHarness(weights, imgsz=128).fingerprint != base
    assert ValidationHarness(weights, imgsz=96, iou=0.6).fingerprint != base


def test_models_without_upright_boxes_are_refused(yolo_folder):
    from ultralytics import YOLO

    YOLO("yolov8n-cls.yaml").save(yolo_folder / "classes.pt")
    with pytest.raises(RainmerError, match="a model for classify"):
        ValidationHarness(str(yolo_folder / "classes.pt"))
