"""Scalabel JSON: the three forms in which BDD100K was published, and what is broken in them."""

import json

import pytest

from rainmer.data.annotations.scalabel import read_scalabel
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError

BOX = {"x1": 2, "y1": 3, "x2": 12.5, "y2": 8}


def frame(*labels, name="a.jpg", **more):
    return {"name": name, "labels": list(labels), **more}


def read(tmp_path, content):
    path = tmp_path / "labels.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    defects = Defects()
    return read_scalabel(path, defects), defects


@pytest.mark.parametrize("wrap", [list, lambda frames: {"frames": list(frames), "config": None}])
def test_frames_with_labels(tmp_path, wrap):
    frames = [
        frame(
            {"category": "rider", "box2d": BOX},
            {"category": "car", "box2d": BOX, "attributes": {"crowd": True, "occluded": False}},
            {"category": "drivable area", "poly2d": []},
            attributes={"weather": "rainy", "timeofday": "night"},
        ),
        {"name": "b.jpg"},
        {"name": "c.jpg", "labels": None, "attributes": None},
    ]
    found, defects = read(tmp_path, wrap(frames))
    assert found.categories == {1: "car", 2: "rider"}
    assert list(found.records) == ["a", "b", "c"]
    record = found.records["a"]
    assert record.attributes == {"weather": "rainy", "timeofday": "night"}
    assert record.size_hw is None
    assert [(b["category_id"], b["bbox"], b["iscrowd"]) for b in record.boxes] == [
        (2, [2, 3, 10.5, 5], 0),
        (1, [2, 3, 10.5, 5], 1),
    ]
    assert defects.notes == {"labels without a box, left out": ["drivable area: 1"]}
    assert not defects.errors


def test_a_folder_with_a_file_for_each_image(tmp_path):
    for name in "ab":
        inner = {"objects": [{"category": "car", "box2d": BOX}, {"category": "lane"}]}
        content = {"name": name, "attributes": {"weather": "rainy"}, "frames": [inner]}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "c.json").write_text("{")
    defects = Defects()
    found = read_scalabel(tmp_path, defects)
    assert {key: len(record.boxes) for key, record in found.records.items()} == {"a": 1, "b": 1}
    assert "c.json is not valid JSON" in defects.errors["unreadable label file"][0]
    assert defects.notes == {"labels without a box, left out": ["lane: 2"]}


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        (3, "malformed label"),
        ({"box2d": BOX}, "malformed label"),
        ({"category": ["car"], "box2d": BOX}, "malformed label"),
        ({"category": "car", "box2d": [1, 2, 3, 4]}, "malformed box"),
        ({"category": "car", "box2d": {**BOX, "x2": 2}}, "malformed box"),
        ({"category": "car", "box2d": {**BOX, "x2": "12,5"}}, "malformed box"),
        ({"category": "car", "box2d": {**BOX, "x2": True}}, "malformed box"),
        ({"category": "car", "box2d": {**BOX, "x2": float("nan")}}, "malformed box"),
        ({"category": "car", "box2d": {**BOX, "x2": 10**400}}, "malformed box"),
        ({"category": "car", "box2d": {"x1": 1}}, "malformed box"),
    ],
)
def test_broken_labels_are_named(tmp_path, label, kind):
    found, defects = read(tmp_path, [frame(label, {"category": "bus", "box2d": BOX})])
    assert len(found.records["a"].boxes) == 1
    assert list(defects.errors) == [kind]
    assert defects.errors[kind][0].startswith("a.jpg: label 1: ")


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (3, "frame without a file name"),
        ({"labels": []}, "frame without a file name"),
        ({"name": ""}, "frame without a file name"),
        ({"name": ".."}, "frame without a file name"),
        ({"name": "a.jpg"}, "image listed twice in the annotations"),
        ({"name": "b.jpg", "labels": {}}, "labels that are no list"),
    ],
)
def test_broken_frames_are_named(tmp_path, bad, kind):
    found, defects = read(tmp_path, [frame(name="a.jpg"), bad])
    assert "a" in found.records
    assert list(defects.errors) == [kind]


def test_attributes_of_the_wrong_form_are_noted(tmp_path):
    found, defects = read(tmp_path, [frame(attributes=["rainy"])])
    assert found.records["a"].attributes == {}
    assert defects.notes == {"image attributes that are no mapping, ignored": ["a.jpg"]}


@pytest.mark.parametrize("content", [[], {}, {"frames": 3}, 7, '"text"', [3, None]])
def test_no_frames_at_all(tmp_path, content):
    with pytest.raises(DatasetError, match=r"labels\.json holds no Scalabel frames"):
        read(tmp_path, content)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, ""])
def test_files_that_are_no_json(tmp_path, content):
    with pytest.raises(DatasetError, match=r"labels\.json is not valid JSON"):
        read(tmp_path, content)


def test_repairs_are_counted(tmp_path):
    labels = [
        {"category": "car", "box2d": BOX},
        {"category": "car", "box2d": {key: str(value) for key, value in BOX.items()}},
        {"category": "bus", "box2d": {"x1": 12.5, "y1": 8, "x2": 2, "y2": 3}},
        {"category": "car", "box2d": BOX, "attributes": {"crowd": "true"}},
        {"category": "van", "box2d": BOX, "attributes": {"crowd": "some"}},
    ]
    found, defects = read(tmp_path, [frame(*labels)])
    boxes = [(found.categories[b["category_id"]], b["bbox"], b["iscrowd"]) for b in
             found.records["a"].boxes]  # fmt: skip
    box = [2, 3, 10.5, 5]
    assert boxes == [("car", box, 0), ("bus", box, 0), ("car", box, 1), ("van", box, 0)]
    assert defects.repairs == {
        "number given as text, read as a number": ["a.jpg: label 2"],
        "object listed twice, the first counts": ["a.jpg: label 2"],
        "corners of a box in the wrong order, swapped": ["a.jpg: label 3"],
        "`crowd` that is neither true nor false, taken as false": ["a.jpg: label 5: 'some'"],
    }
    assert not defects.errors


def test_a_frame_listed_twice_says_how_many_boxes_it_costs(tmp_path):
    _, defects = read(tmp_path, [frame(), frame({"category": "car", "box2d": BOX})])
    assert defects.errors == {"image listed twice in the annotations": ["a.jpg with 1 boxes"]}
