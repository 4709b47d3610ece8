"""Boxes of labelled photos, followed into crops."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rainmer.errors import ConfigError, DatasetError
from rainmer.frames.images import write_image
from rainmer.train.boxes import FrameBoxes, join_boxes, read_frame_boxes
from rainmer.train.mixture import Batch, SampleShape, make_sample
from rainmer.train.sources import FramePair, RainChoice, RenderedConfig, RenderedSource

CLASSES = ("person", "traffic light", "car")


def frame_boxes(*rows):
    return FrameBoxes(np.array(rows, np.float32).reshape(-1, 5), np.ones(3, np.bool_))


@pytest.fixture
def photos(tmp_path):
    for name in ("a", "sub/b"):
        write_image(tmp_path / "photos" / f"{name}.png", np.zeros((40, 60, 3), np.uint8))
    return tmp_path / "photos", [tmp_path / "photos" / f"{name}.png" for name in ("a", "sub/b")]


def coco(path, annotations, names=("Car", "Traffic_Light", "boat")):
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": category, "bbox": bbox, "iscrowd": crowd,
             "area": bbox[2] * bbox[3]}
            for i, (category, bbox, crowd) in enumerate(annotations, 1)
        ],
    }  # fmt: skip
    path.write_text(json.dumps(content))
    return path


def test_coco_boxes_are_matched_by_name(tmp_path, photos, caplog):
    root, images = photos
    boxes = [(1, [10, 5, 20, 10], 0), (3, [0, 0, 9, 9], 0), (1, [1, 1, 5, 5], 1)]
    file = coco(tmp_path / "boxes.json", [*boxes, (2, [50, 30, 30, 30], 0)])
    with caplog.at_level("INFO"):
        first, second = read_frame_boxes(file, images, root, CLASSES)
    # The boat and the crowd are left out; what reaches out of the image is cut.
    np.testing.assert_array_equal(first.boxes, [[2, 10, 5, 30, 15], [1, 50, 30, 60, 40]])
    assert first.labelled.tolist() == [False, True, True]
    assert "class that the detector lacks" in caplog.text
    # The second photo is not listed: nothing is known of its objects.
    assert len(second.boxes) == 0
    assert not second.labelled.any()


def test_yolo_labels_need_names(tmp_path, photos):
    root, images = photos
    (tmp_path / "labels" / "sub").mkdir(parents=True)
    (tmp_path / "labels" / "sub" / "b.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    with pytest.raises(ConfigError, match="only numbers"):
        read_frame_boxes(tmp_path / "labels", images, root, CLASSES)
    names = ("boat", "person")
    first, second = read_frame_boxes(tmp_path / "labels", images, root, CLASSES, names)
    assert len(first.boxes) == 0
    np.testing.assert_array_equal(second.boxes, [[0, 15, 10, 45, 30]])
    assert first.labelled.tolist() == [True, False, False]  # no label file: no objects


def test_strange_annotations_are_refused_in_one_line(tmp_path, photos):
    root, images = photos
    with pytest.raises(ConfigError, match=r"none of its classes \(boat\)"):
        read_frame_boxes(coco(tmp_path / "b.json", [], ("boat",)), images, root, CLASSES)
    with pytest.raises(DatasetError, match="absent"):
        read_frame_boxes(tmp_path / "absent.json", images, root, CLASSES)


@given(
    corner=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    box=st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 40)] * 2),
    turn=st.integers(0, 3),
)
def test_a_crop_shows_its_boxes_where_the_pixels_are(corner, box, turn):
    """The box around the pixels of an object drawn into the frame, cropped like the frame."""
    left, top, width, height = box
    frame = np.zeros((100, 100, 3), np.uint8)
    frame[top : top + height, left : left + width] = 255
    area = frame[corner[0] : corner[0] + 32, corner[1] : corner[1] + 32, 0]
    area = np.flip(area, turn - 1) if turn in (1, 2) else area
    crop = frame_boxes([1, left, top, left + width, top + height]).crop(corner, 32, turn)
    rows, columns = area.any(1).nonzero()[0], area.any(0).nonzero()[0]
    visible = area.astype(bool).sum()
    large = len(rows) >= 3 and len(columns) >= 3
    assert len(crop.boxes) == (large and visible >= 0.3 * width * height)
    if len(crop.boxes):
        expected = [1, columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_array_equal(crop.boxes[0], expected)


def test_batches_number_crops_and_know_what_is_labelled():
    import random

    picture = np.zeros((64, 64, 3), np.uint8)
    shape = SampleShape(64, crops=2, query=16, classes=3)
    labelled = FramePair(picture, picture, frame_boxes([2, 8, 8, 40, 40]))
    samples = [make_sample(pair, shape, random.Random(0))
               for pair in (FramePair(picture, picture), labelled)]  # fmt: skip
    boxes = Batch.of(samples).boxes
    assert boxes.boxes[:, :2].tolist() == [[2, 2], [3, 2]]
    assert boxes.labelled.tolist() == [[False] * 3] * 2 + [[True] * 3] * 2
    assert Batch.of([make_sample(labelled, SampleShape(64), random.Random(0))]).boxes is None


def test_windows_and_scales_move_boxes_with_the_photo(tmp_path, photos):
    root, _ = photos
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[10:30, 20:40] = 255
    write_image(root / "a.png", picture)
    file = coco(tmp_path / "boxes.json", [(1, [20, 10, 20, 20], 0)])
    config = RenderedConfig(
        images=str(root),
        rain={"none": {}},
        files="a.png",
        annotations=str(file),
        window=48,
        scale=2.0,
    )
    from rainmer.config import from_mapping, to_mapping

    config = from_mapping(RenderedConfig, to_mapping(config), "photos")
    source = RenderedSource("photos", config, classes=CLASSES)
    for visit in range(4):
        pair = source.load(0, visit)
        ((number, left, top, right, bottom),) = pair.boxes.boxes.round().astype(int)
        assert number == 2
        inside = pair.clean[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        assert inside.mean() > 220
        assert (pair.clean > 128).sum() <= inside.size
    assert RenderedSource("photos", config).load(0, 0).boxes is None


def test_processes_share_renderings_with_their_boxes(tmp_path, photos):
    root, _ = photos
    file = coco(tmp_path / "boxes.json", [(1, [20, 10, 20, 20], 0)])
    config = RenderedConfig(
        images=str(root),
        rain={"none": RainChoice()},
        annotations=str(file),
        window=None,
        reuse=2,
    )
    for classes in ((), CLASSES):
        folder = tmp_path / f"shared{len(classes)}"
        folder.mkdir()
        first, second = (RenderedSource("photos", config, classes=classes) for _ in range(2))
        for source in (first, second):
            source.share(folder)
        made, reused = first.load(0, 0), second.load(0, 1)
        np.testing.assert_array_equal(reused.rainy, made.rainy)
        assert (reused.boxes is None) == (not classes)
        if classes:
            np.testing.assert_array_equal(reused.boxes.boxes, made.boxes.boxes)
            np.testing.assert_array_equal(reused.boxes.labelled, made.boxes.labelled)


def test_whole_frames_join_like_crops():
    boxes = join_boxes([frame_boxes(), frame_boxes([1, 0, 0, 4, 4])])
    assert torch.equal(boxes.boxes, torch.tensor([[1.0, 1, 0, 0, 4, 4]]))
