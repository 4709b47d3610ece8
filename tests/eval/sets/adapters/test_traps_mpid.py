"""MPID: labels drawn without EXIF orientation, labels of another size, orphans on both sides."""

import cv2
import numpy as np
import pytest
from PIL import Image

from eval.sets.adapters import AdapterOptions, adapt
from eval.sets.adapters.fitting import turn_boxes
from rainmer.errors import ConfigError, DatasetError
from rainmer.frames.images import read_image
from tests.eval.sets.adapters.layouts import image, rid_tree, ris_tree, text, turned_jpeg, voc_xml

STORED_HW = (24, 40)
BOX = (4, 6, 14, 10)  # corners in the stored pixels


def only_box(data):
    (scene,) = data.scenes
    (box,) = scene.boxes
    return box["bbox"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_moves_with_the_pixels_that_it_marks(tmp_path, orientation):
    """The reference is the decoder: a bright block in the stored pixels is found where it shows."""
    left, top, right, bottom = BOX
    pixels = np.zeros((*STORED_HW, 3), np.uint8)
    pixels[top:bottom, left:right] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    text(tmp_path / "a.xml", voc_xml(STORED_HW, ("car", *BOX)))
    data = adapt("mpid-rid", tmp_path)
    shown = (read_image(tmp_path / "a.jpg")[..., 0] > 128).astype(np.uint8)
    assert data.scenes[0].size_hw == shown.shape
    assert only_box(data) == list(cv2.boundingRect(shown))
    assert not data.defects.errors
    guessed = any("the size does not tell" in kind for kind in data.defects.notes)
    assert guessed == (orientation in (2, 3, 4))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_labels_drawn_on_the_turned_image_stay(tmp_path, orientation):
    turned_jpeg(tmp_path / "a.jpg", STORED_HW, orientation)
    text(tmp_path / "a.xml", voc_xml((40, 24), ("car", *BOX)))
    data = adapt("mpid-rid", tmp_path)
    assert only_box(data) == [4, 6, 10, 4]
    assert not data.defects.lines()


def test_orientation_four_times_a_quarter_is_none():
    boxes, size_hw = [{"bbox": [4, 6, 10, 4]}], STORED_HW
    for _ in range(4):
        boxes, size_hw = turn_boxes(boxes, size_hw, 6), size_hw[::-1]
    assert boxes == [{"bbox": [4, 6, 10, 4]}]


def test_a_quarter_without_orientation_is_an_error_until_it_is_said(tmp_path):
    image(tmp_path / "A-F-78.jpg", (40, 24))
    text(tmp_path / "A-F-78.xml", voc_xml((24, 40), ("car", *BOX)))
    turned_jpeg(tmp_path / "B.jpg", STORED_HW, 6)
    text(tmp_path / "B.xml", voc_xml(STORED_HW, ("car", *BOX)))
    data = adapt("mpid-rid", tmp_path)
    assert [scene.name for scene in data.scenes] == ["B.jpg"]
    ((kind, subjects),) = data.defects.errors.items()
    assert "direction unknown" in kind
    assert "--turns" in kind
    assert subjects == ["A-F-78.jpg"]
    for degrees, expected in (("90", [24 - 10, 4, 4, 10]), ("-90", [6, 40 - 14, 4, 10])):
        turns = text(tmp_path / "turns.txt", f"# looked at\na-f-78.jpg {degrees}\n")
        data = adapt("mpid-rid", tmp_path, AdapterOptions(turns=turns))
        assert [list(s.boxes[0]["bbox"]) for s in data.scenes if "F" in s.name] == [expected]
        assert not data.defects.errors


@pytest.mark.parametrize("line", ["a.jpg", "a.jpg 45", "a.jpg north"])
def test_turns_that_are_none(tmp_path, line):
    rid_tree(tmp_path)
    turns = text(tmp_path / "turns.txt", line)
    with pytest.raises(DatasetError, match=r"turns.txt: expected `name degrees`"):
        adapt("mpid-rid", tmp_path, AdapterOptions(turns=turns))


def test_a_size_that_fits_neither_way_is_an_error(tmp_path):
    rid_tree(tmp_path)
    image(tmp_path / "images" / "b.jpg", (24, 40))
    text(tmp_path / "labels" / "b.xml", voc_xml((25, 41), ("car", *BOX)))
    data = adapt("mpid-rid", tmp_path)
    assert len(data.scenes) == 1
    assert data.defects.errors == {
        "image of another size than its annotation says, skipped": ["b.jpg: 40x24, annotated 41x25"]
    }


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_labels_without_a_size_are_taken_as_stored_and_noted(tmp_path, size):
    turned_jpeg(tmp_path / "a.jpg", STORED_HW, 8)
    text(tmp_path / "a.xml", voc_xml(size, ("car", *BOX)))
    data = adapt("mpid-rid", tmp_path)
    assert only_box(data) == [6, 26, 4, 10]
    assert any("without image size" in kind for kind in data.defects.notes)


@pytest.mark.parametrize("image_hw", [(36, 64), (48, 64), (72, 128), (108, 192), (96, 128)])
def test_ris_boxes_are_scaled_to_every_size_of_image(tmp_path, image_hw):
    image(tmp_path / "1-2-3.jpg", image_hw)
    text(tmp_path / "1-2-3.xml", voc_xml((36, 64), ("car", 16, 9, 32, 18)))
    data = adapt("mpid-ris", tmp_path)
    height, width = image_hw
    assert only_box(data) == pytest.approx([width / 4, height / 4, width / 4, height / 4])
    assert bool(data.defects.notes) == (image_hw != (36, 64))


def test_ris_portrait_labels_of_a_landscape_image_are_an_error(tmp_path):
    ris_tree(tmp_path)
    image(tmp_path / "b-1.jpg", (36, 64))
    text(tmp_path / "b-1.xml", voc_xml((64, 36), ("car", 1, 1, 9, 9)))
    data = adapt("mpid-ris", tmp_path)
    assert len(data.scenes) == 1
    assert data.defects.errors["image of another size than its annotation says, skipped"]


@pytest.mark.parametrize("name", ["mpid-rid", "mpid-ris"])
def test_orphans_are_noted(tmp_path, name):
    image(tmp_path / "a-1.jpg")
    image(tmp_path / "b-1.jpg")
    xml = voc_xml((24, 40), ("car", 1, 1, 9, 9))
    text(tmp_path / "xml" / "a-1.xml", xml)
    text(tmp_path / "xml" / "c-1.xml", xml)
    data = adapt(name, tmp_path)
    assert data.defects.notes == {
        "label file without image": ["c-1.xml"],
        "image without label file, left out": ["b-1.jpg"],
    }
    assert not data.defects.errors


def test_frames_of_one_ris_recording_are_one_scene(tmp_path):
    for number in (300, 600):
        image(tmp_path / f"125-20160325_091413-{number}.jpg")
        xml = voc_xml((24, 40), ("car", 1, 1, 9, 9))
        text(tmp_path / f"125-20160325_091413-{number}.xml", xml)
    scenes = adapt("mpid-ris", tmp_path).scenes
    assert {scene.attributes["scene_id"] for scene in scenes} == {"125-20160325_091413"}


def test_boxes_out_of_their_image(tmp_path):
    image(tmp_path / "a-1.jpg")
    boxes = (("car", 1, 1, 9, 9), ("car", 60, 1, 70, 9), ("bus", 30, 2, 50, 12))
    text(tmp_path / "a-1.xml", voc_xml((24, 40), *boxes))
    data = adapt("mpid-ris", tmp_path)
    assert [box["bbox"] for box in data.scenes[0].boxes] == [[1, 1, 8, 8], [30, 2, 10, 10]]
    assert data.defects.errors == {"box outside its image, dropped": ["a-1.jpg"]}
    assert data.defects.repairs == {"box reaching out of its image, cut at the border": ["a-1.jpg"]}


def test_two_files_of_one_stem(tmp_path):
    ris_tree(tmp_path)
    image(tmp_path / "copy" / "125-20160325_091413-300.png", (72, 128))
    data = adapt("mpid-ris", tmp_path)
    assert len(data.scenes) == 1
    assert "image with the stem of another, left out" in data.defects.errors


def test_an_option_that_does_not_apply_is_refused(tmp_path):
    ris_tree(tmp_path)
    turns = text(tmp_path / "turns.txt", "a 90")
    with pytest.raises(ConfigError, match="mpid-ris takes no --turns; it takes --allow-list"):
        adapt("mpid-ris", tmp_path, AdapterOptions(turns=turns))
