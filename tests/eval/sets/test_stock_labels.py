"""Our reader of YOLO labels against that of ultralytics: the same boxes, or a named error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainmer.data.annotations.yolo import read_yolo
from rainmer.data.defects import Defects
from rainmer.frames.images import write_image
from tests.eval.trees import NAMES

SIZE_HW = (100, 200)
BOX, OTHER = "0 0.5 0.5 0.2 0.2", "1 0.25 0.25 0.125 0.125"
SQUARE = "2 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3"
CUT = "2 0.1 0.1 0.3 0.1 0.3 0.3 0.2 0.3 0.1 0.2"
POSE = f"{BOX} " + " ".join(["0.5 0.5 2"] * 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    write_image(folder / "a.png", np.zeros((*SIZE_HW, 3), np.uint8))
    return folder


def by_ultralytics(folder, keypoints=0):
    """Sorted (class, left, top, width, height) in pixels; None where the image is refused."""
    from ultralytics.data.utils import verify_image_label

    arguments = (str(folder / "a.png"), str(folder / "a.txt"), "", False, len(NAMES), keypoints, 3,
                 False)  # fmt: skip
    _, labels, *_, corrupt, message = verify_image_label(arguments)
    if corrupt:
        return None, message
    rows = [
        (c, (x - w / 2) * SIZE_HW[1], (y - h / 2) * SIZE_HW[0], w * SIZE_HW[1], h * SIZE_HW[0])
        for c, x, y, w, h in labels.astype(float)
    ]
    return sorted(rows), message


def by_us(folder, keypoints=0):
    defects = Defects()
    found = read_yolo(folder, NAMES, {"a": SIZE_HW}, defects, keypoint_numbers=3 * keypoints)
    rows = [(box["category_id"], *box["bbox"]) for box in found.records["a"].boxes]
    return sorted(rows), defects


@pytest.mark.parametrize(
    ("lines", "keypoints"),
    [
        ([BOX, BOX], 0),
        ([BOX, "0 0.50 0.500 0.20 0.2", OTHER], 0),
        ([BOX, "0 0.5 0.5 0.2 0.200000001"], 0),
        (["0.0 0.5 0.5 0.2 0.2", BOX, OTHER, OTHER, OTHER], 0),
        ([SQUARE, CUT, SQUARE], 0),
        ([POSE, OTHER, POSE], 3),
        (["", BOX, "  ", OTHER], 0),
        ([f"\ufeff{BOX}\r", f"{BOX}\t"], 0),
        (["0 1.005 0.5 0.2 0.2"], 0),
        ([], 0),
    ],
    ids=range(10),
)
def test_what_ultralytics_reads_we_read_alike(folder, lines, keypoints):
    (folder / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    theirs, message = by_ultralytics(folder, keypoints)
    ours, defects = by_us(folder, keypoints)
    assert len(ours) == len(theirs)
    if theirs:
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    removed = int(message.rpartition(": ")[2].split()[0]) if "duplicate" in message else 0
    assert sum(defects.counts()["repairs"].values()) == removed
    assert not defects.errors


@pytest.mark.parametrize(
    "line",
    [
        "0 0.5 0.5 0.2 0.2 0.9",
        "0 0.5 0.5 0.2",
        "car 0.5 0.5 0.2 0.2",
        "0 0,5 0,5 0,2 0,2",
        "# comment",
        "0.5 0.5 0.5 0.2 0.2",
        "3 0.5 0.5 0.2 0.2",
        "-1 0.5 0.5 0.2 0.2",
        "0 0.5 0.5 -0.2 0.2",
        "0 0.5 0.5 0.2 0.2\0",
        POSE,
    ],
)
def test_what_ultralytics_refuses_is_an_error_here_that_costs_one_line(folder, line):
    (folder / "a.txt").write_text(f"{OTHER}\n{line}\n")
    theirs, _ = by_ultralytics(folder)
    ours, defects = by_us(folder)
    assert theirs is None  # the whole image
    assert len(ours) == 1
    assert sum(defects.counts()["errors"].values()) == 1


NUMBERS = st.sampled_from(["0.1", "0.10", ".25", "0.5", "5e-1", "0.75", "1", "1.0"])
LINES = st.lists(st.tuples(st.sampled_from("012"), NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=6)


@given(LINES)
def test_any_boxes_are_read_alike(folder, lines):
    (folder / "a.txt").write_text("\n".join(map(" ".join, lines)))
    theirs, _ = by_ultralytics(folder)
    ours, defects = by_us(folder)
    np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=1e-4)
    assert len(ours) + sum(defects.counts()["repairs"].values()) == len(lines)
