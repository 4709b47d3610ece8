"""YOLO label lines: read as ultralytics reads them, or named."""

import numpy as np
import pytest

from rainmer.data.annotations.yolo import read_yolo
from rainmer.data.defects import Defects

NAMES = {0: "car", 1: "bus"}
REPEAT = "object listed twice, the first counts"


def read(folder, content, **options):
    """Read one file of an image of 100 x 200 pixels."""
    (folder / "a.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    defects = Defects()
    found = read_yolo(folder, NAMES, {"a": (100, 200)}, defects, **options)
    return [(box["category_id"], *box["bbox"]) for box in found.records["a"].boxes], defects


@pytest.mark.parametrize(
    ("again", "kept"),
    [
        ("0 0.5 0.5 0.2 0.2", 1),
        ("0 0.50 .5 0.2 2e-1", 1),
        ("0.0\t0.5\t0.5\t0.2\t0.2", 1),
        ("0 0.5 0.5 0.2 0.200000001", 1),  # equal as float32
        ("0 0.5 0.5 0.2 0.2001", 2),
        ("1 0.5 0.5 0.2 0.2", 2),
        ("0 0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6", 2),  # the same box, but a polygon
    ],
)
def test_a_line_counts_once(tmp_path, again, kept):
    boxes, defects = read(tmp_path, f"0 0.5 0.5 0.2 0.2\n{again}\n")
    assert len(boxes) == kept
    assert defects.repairs == ({} if kept == 2 else {REPEAT: ["a.txt:2"]})
    assert not defects.errors


def test_polygons_are_told_apart_by_their_points(tmp_path):
    square, cut = "0 .1 .1 .3 .1 .3 .3 .1 .3", "0 .1 .1 .3 .1 .3 .3 .2 .3 .1 .2"
    boxes, defects = read(tmp_path, "\n".join([square, cut, square]))
    assert len(boxes) == 2
    assert defects.repairs == {REPEAT: ["a.txt:3"]}


@pytest.mark.parametrize(
    "content",
    [
        "0 0.5 0.5 0.2 0.2",
        "\n\n0 0.5 0.5 0.2 0.2   \n\n",
        "\ufeff0 0.5 0.5 0.2 0.2\r\n",
        "0\t0.5\t0.5\t0.2\t0.2\r",
        "0.0 5e-1 +.5 0.2 0.2",
        "0 0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6",
    ],
    ids=range(6),
)
def test_forms_of_one_box(tmp_path, content):
    boxes, defects = read(tmp_path, content)
    np.testing.assert_allclose(boxes, [(0, 80, 40, 40, 20)])
    assert not defects.lines()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.2 0.2 0.9", "6 numbers, as in files of predictions"),
        ("0 0.5 0.5 0.2", "4 numbers; a box has 5"),
        ("0 0.5 0.5 0.2 0.2 0.5 0.5 2", "8 numbers; a box has 5"),
        ("car 0.5 0.5 0.2 0.2", "'car' is no number"),
        ("# x y w h", "'#' is no number"),
        ("0 0,5 0,5 0,2 0,2", "'0,5' is no number"),
        ("0,0.5,0.5,0.2,0.2", "'0,0.5,0.5,0.2,0.2' is no number"),
        ("0 0.5 0.5 0.2 nan", "'nan' is no number"),
        ("0 0.5 0.5 0.2 inf", "'inf' is no number"),
        ("0 0.5 0.5 0.2 0.2\0", "is no number"),
        ("0 0.5 0.5 0.2 0_2", "'0_2' is no number"),
        ("0.5 0.5 0.5 0.2 0.2", "the class 0.5 is no whole number"),
        ("0 0.5 0.5 -0.2 0.2", "a box that covers nothing"),
        ("0 0.5 0.5 0 0.2", "a box that covers nothing"),
        ("0 0.5 0.5 1e7 0.2", "numbers that are no fractions"),
    ],
)
def test_what_is_no_label_is_named_and_costs_its_line_only(tmp_path, line, reason):
    boxes, defects = read(tmp_path, f"1 0.5 0.5 0.1 0.1\n{line}\n")
    assert len(boxes) == 1
    ((kind, (subject,)),) = defects.errors.items()
    assert kind == "malformed label line"
    assert subject.startswith("a.txt:2: ")
    assert reason in subject


@pytest.mark.parametrize(
    ("content", "kind", "subject"),
    [
        ("2 0.5 0.5 0.2 0.2", "label of an unknown class", "a.txt:1: 2"),
        ("-1 0.5 0.5 0.2 0.2", "label of an unknown class", "a.txt:1: -1"),
        ("0 0.5".encode("utf-16"), "unreadable label file", "a.txt: it is no UTF-8 text"),
    ],
)
def test_other_errors(tmp_path, content, kind, subject):
    boxes, defects = read(tmp_path, content)
    assert boxes == []
    assert defects.errors == {kind: [subject]}


def test_keypoints_behind_a_box(tmp_path):
    pose = "0 0.5 0.5 0.2 0.2 " + " ".join(["0.5 0.5 2"] * 17)
    boxes, defects = read(tmp_path, pose, keypoint_numbers=51)
    np.testing.assert_allclose(boxes, [(0, 80, 40, 40, 20)])
    assert not defects.lines()
    boxes, defects = read(tmp_path, pose)
    assert boxes == []
    assert defects.errors == {
        "malformed label line": ["a.txt:1: 56 numbers; a box has 5, a polygon 7, 9, ..."]
    }


def test_empty_and_missing_files_are_no_objects(tmp_path):
    (tmp_path / "a.txt").write_text(" \n")
    defects = Defects()
    found = read_yolo(tmp_path, NAMES, {"a": (9, 9), "b": (9, 9)}, defects)
    assert [record.boxes for record in found.records.values()] == [[], []]
    assert defects.notes == {"image without label file, taken as empty": ["b"]}
