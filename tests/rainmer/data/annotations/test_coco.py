"""COCO JSON: what people's tools write instead of numbers, ids and boxes."""

import copy
import json

import numpy as np
import pytest
from pycocotools import mask as coco_masks

from rainmer.data.annotations.coco import read_coco
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError

PLAIN = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "height": 100, "width": 200},
        {"id": 2, "file_name": "b.jpg", "height": 100, "width": 200},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "area": 900,
         "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 1},
    ],
    "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}],
}  # fmt: skip
TEXT = "number given as text, read as a number"
REPEAT = "object listed twice, the first counts"


def read(folder, content):
    (folder / "instances.json").write_text(json.dumps(content))
    defects = Defects()
    return read_coco(folder / "instances.json", defects), defects


def boxes(found):
    """(file, class, box, area, crowd) of every annotation."""
    return [
        (key, found.categories[box["category_id"]], box["bbox"], box["area"], box["iscrowd"])
        for key, record in found.records.items()
        for box in record.boxes
    ]


EXPECTED = [("a", "car", [10, 20, 30, 40], 900, 0), ("b", "bus", [1, 2, 3, 4], 12, 1)]


def changed(**fields):
    """The plain file with other fields in its first annotation."""
    content = copy.deepcopy(PLAIN)
    content["annotations"][0] |= fields
    return content


def renamed(kind, ids):
    """The plain file with other ids of its images or categories."""
    content = copy.deepcopy(PLAIN)
    listed, field = {"image": ("images", "image_id"), "category": ("categories", "category_id")}[
        kind
    ]
    for entry in content[listed]:
        entry["id"] = ids[entry["id"]]
    for entry in content["annotations"]:
        entry[field] = ids[entry[field]]
    return content


def test_the_plain_form(tmp_path):
    found, defects = read(tmp_path, PLAIN)
    assert boxes(found) == EXPECTED
    assert not defects.lines()


@pytest.mark.parametrize("kind", ["image", "category"])
@pytest.mark.parametrize(
    "ids", [{1: "a", 2: "b"}, {1: 7, 2: "b"}, {1: "000000000139", 2: "é 1"}, {1: "-1", 2: "1.5"}]
)
def test_ids_may_be_any_text(tmp_path, kind, ids):
    found, defects = read(tmp_path, renamed(kind, ids))
    assert boxes(found) == EXPECTED
    numbers = [record.image_id for record in found.records.values()]
    assert len({*numbers}) == len({*found.categories}) == 2
    assert all(isinstance(number, int) for number in [*numbers, *found.categories])
    assert not defects.errors
    assert set(defects.repairs) <= {TEXT, f"id of {kind} that is text, numbered"}


@pytest.mark.parametrize(
    "fields",
    [
        {"bbox": ["10", "20.0", " 30", "4e1"]},
        {"area": "900"},
        {"iscrowd": "0"},
        {"image_id": "1"},
        {"category_id": "1.0"},
    ],
)
def test_numbers_may_be_text_in_every_field(tmp_path, fields):
    found, defects = read(tmp_path, changed(**fields))
    assert boxes(found) == EXPECTED
    assert defects.counts() == {"errors": {}, "repairs": {TEXT: 1}, "notes": {}}


@pytest.mark.parametrize("field", ["height", "width"])
def test_sizes_may_be_text(tmp_path, field):
    content = copy.deepcopy(PLAIN)
    content["images"][0][field] = str(content["images"][0][field])
    found, defects = read(tmp_path, content)
    assert found.records["a"].size_hw == (100, 200)
    assert defects.repairs == {TEXT: ["image 'a.jpg'"]}


@pytest.mark.parametrize("crowd", [False, 0.0, None, "", "false", "False"])
def test_forms_of_no_crowd(tmp_path, crowd):
    found, defects = read(tmp_path, changed(iscrowd=crowd))
    assert boxes(found) == EXPECTED
    assert not defects.lines()


@pytest.mark.parametrize("crowd", [True, 1.0, "1", "True"])
def test_forms_of_a_crowd(tmp_path, crowd):
    found, _ = read(tmp_path, changed(iscrowd=crowd))
    assert found.records["a"].boxes[0]["iscrowd"] == 1


def masks():
    pixels = np.zeros((100, 200), np.uint8, order="F")
    pixels[20:60, 10:40] = 1
    encoded = coco_masks.encode(pixels)
    flat = pixels.ravel("F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {
        "polygon": [[10, 20, 40, 20, 40, 60, 10, 60]],
        "two polygons": [[10, 20, 20, 20, 20, 60], ["30", 20, 40, 30, 30, 50]],
        "one flat polygon": [10, 20, 40, 20, 40, 60, 10, 60],
        "run lengths": {"size": [100, 200], "counts": counts},
        "compressed": {"size": [100, 200], "counts": encoded["counts"].decode()},
    }


@pytest.mark.parametrize("form", masks())
@pytest.mark.parametrize("bbox", [None, []])
def test_a_box_is_taken_from_a_segmentation(tmp_path, form, bbox):
    found, defects = read(tmp_path, changed(bbox=bbox, segmentation=masks()[form]))
    assert boxes(found) == EXPECTED
    assert not defects.errors
    assert "annotation without a box, taken from its segmentation" in defects.repairs


@pytest.mark.parametrize(
    "mask",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, None]],
        [[1, 1, 1, 1, 1, 1]],
        [[[1, 2], [3, 4], [5, 6]]],
        "text",
        {"size": [100, 200]},
        {"size": [100, 200], "counts": [5, 5]},
        {"size": [100, 200], "counts": [-5, 20005]},
        {"size": [0, 200], "counts": "0"},
        {"size": [10, 20], "counts": [100, 100]},
        {"size": [100, 200], "counts": [20000]},
        {"size": [100, 200], "counts": "é"},
        {"size": [100, 200], "counts": "0o"},  # its last number does not end
        {"size": [100, 200], "counts": "PPPPPPPPPPPPPPPPP0"},
        {"size": [2**20, 2**20], "counts": [2**40]},
    ],
    ids=range(16),
)
def test_a_segmentation_that_is_none(tmp_path, mask):
    content = changed(bbox=None, segmentation=mask)
    found, defects = read(tmp_path, content)
    assert boxes(found) == EXPECTED[1:]
    assert defects.counts()["errors"] == {
        "malformed segmentation of an annotation without a box": 1
    }


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, 2),
        ({"id": 77}, 2),
        ({"bbox": [10.0, "20", 30, 40]}, 2),
        ({"category_id": 2}, 3),
        ({"image_id": 2}, 3),
        ({"iscrowd": 1}, 3),
        ({"bbox": [10, 20, 30, 40.5]}, 3),
    ],
)
def test_an_annotation_counts_once(tmp_path, fields, kept):
    content = copy.deepcopy(PLAIN)
    content["annotations"].append(content["annotations"][0] | fields)
    found, defects = read(tmp_path, content)
    assert len(boxes(found)) == kept
    assert defects.counts()["repairs"].get(REPEAT, 0) == 3 - kept


def test_an_entry_that_is_there_twice(tmp_path):
    content = copy.deepcopy(PLAIN)
    content["images"].append(content["images"][0])
    content["categories"].append(content["categories"][0])
    found, defects = read(tmp_path, content)
    assert boxes(found) == EXPECTED
    assert defects.repairs == {
        "image listed twice under one id, the first counts": ["a.jpg"],
        "category listed twice under one id, the first counts": ["car"],
    }


def test_an_image_under_two_ids_says_how_many_boxes_it_costs(tmp_path):
    content = copy.deepcopy(PLAIN)
    content["images"][1]["file_name"] = "A.png"
    _, defects = read(tmp_path, content)
    assert defects.errors == {"image listed twice in the annotations": ["A.png with 1 boxes"]}


@pytest.mark.parametrize(
    "name", ["A.JPG", "./a.jpg", "x/y/a.jpg", "x\\y\\a.jpg", "http://host/x/a.jpg", "/abs/a.jpg"]
)
def test_names_with_folders_and_hosts_find_their_image(tmp_path, name):
    content = copy.deepcopy(PLAIN)
    content["images"][0]["file_name"] = name
    found, _ = read(tmp_path, content)
    assert found.match(["a", "b"], Defects())["a"].image_id == 1


def test_more_folders_than_the_images_have(tmp_path):
    content = copy.deepcopy(PLAIN)
    content["images"][0]["file_name"] = "train/images/day/a.jpg"
    content["images"][1]["file_name"] = "train/images/night/a.jpg"
    found, _ = read(tmp_path, content)
    matched = found.match(["day/a", "night/a"], Defects())
    assert {key: record.image_id for key, record in matched.items()} == {"day/a": 1, "night/a": 2}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", True, 10**400, [1], {}])
@pytest.mark.parametrize("place", range(4))
def test_boxes_of_no_numbers_are_named(tmp_path, value, place):
    box = [10, 20, 30, 40]
    box[place] = value
    found, defects = read(tmp_path, changed(bbox=box))
    assert boxes(found) == EXPECTED[1:]
    assert defects.counts()["errors"] == {"malformed box": 1}


@pytest.mark.parametrize("lacking", ["images", "annotations", "categories"])
def test_a_file_without_a_part(tmp_path, lacking):
    content = {key: value for key, value in PLAIN.items() if key != lacking}
    with pytest.raises(DatasetError, match=rf"instances\.json .* it lacks {lacking}"):
        read(tmp_path, content)
