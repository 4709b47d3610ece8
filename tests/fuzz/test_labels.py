"""Label files of any content: never a traceback, never a silent drop.

The number of boxes kept and of entries recorded is the number of entries put in.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainmer.data.annotations.scalabel import read_scalabel
from rainmer.data.annotations.voc import read_voc
from rainmer.data.annotations.yolo import read_yolo
from rainmer.data.defects import Defects
from rainmer.errors import RainmerError

REPEAT = "object listed twice, the first counts"
ODD_WORDS = st.sampled_from(
    ["", "-0", "1e400", "nan", "inf", "1_0", "0x1", "0,5", "１", "9" * 400, "#", "car", "\0",
     "1e-320"]
)  # fmt: skip
WORDS = st.one_of(
    st.sampled_from(["0", "1", "2", "0.5", ".25", "1e-1", "+.5", "-0.1", "1.005", "640"]),
    ODD_WORDS,
    st.floats().map(repr),
    st.text(max_size=4),
)
LINES = st.lists(WORDS, max_size=10).map(" ".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("labels")


def entries(defects):
    """How many entries the records account for, beside the boxes that were kept."""
    counts = defects.counts()
    return sum(counts["errors"].values()) + counts["repairs"].get(REPEAT, 0)


def check_message(error):
    """A message is a line, no page; `run_command` joins what odd names would break into several."""
    assert 10 < len(str(error)) < 3000


def check_boxes(found):
    for record in found.records.values():
        for box in record.boxes:
            assert box["bbox"][2] > 0
            assert box["bbox"][3] > 0
            assert box["category_id"] in found.categories


@given(lines=st.lists(LINES, max_size=8), keypoints=st.sampled_from([0, 3]))
def test_lines_of_yolo(folder, lines, keypoints):
    path = folder / "a.txt"
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    defects = Defects()
    found = read_yolo(
        folder, {0: "a", 1: "b"}, {"a": (100, 200)}, defects, keypoint_numbers=keypoints
    )
    check_boxes(found)
    if "unreadable label file" in defects.errors:
        return
    text = path.read_text(encoding="utf-8-sig")
    filled = [line for line in text.splitlines() if line.strip()]
    assert len(found.records["a"].boxes) + entries(defects) == len(filled)


@given(content=st.binary(max_size=200))
def test_bytes_as_labels(folder, content):
    (folder / "a.txt").write_bytes(content)
    check_boxes(read_yolo(folder, {0: "a"}, {"a": (100, 200)}, Defects()))


def escaped(text):
    return "".join(f"&#{ord(c)};" if c in "<&>\r" else c for c in text)


TAGS = st.sampled_from(["xmin", "ymin", "xmax", "ymax"])


@st.composite
def voc_objects(draw):
    if draw(st.booleans()):  # all but one part as it should be
        corners = {"xmin": "2", "ymin": "3", "xmax": "12", "ymax": "8"}
        corners[draw(TAGS)] = draw(WORDS)
        name, difficult = "car", draw(st.sampled_from(["0", "1", "true", "x", ""]))
    else:
        corners = draw(st.dictionaries(TAGS, WORDS))
        name, difficult = draw(WORDS), draw(WORDS)
    box = "".join(f"<{tag}>{escaped(value)}</{tag}>" for tag, value in corners.items())
    return (
        f"<object><name>{escaped(name)}</name><difficult>{escaped(difficult)}</difficult>"
        f"<bndbox>{box}</bndbox></object>"
    )


@given(objects=st.lists(voc_objects(), max_size=6), repeat=st.booleans())
def test_objects_of_voc(folder, objects, repeat):
    objects = objects * (1 + repeat)
    path = folder / "a.xml"
    text = f"<annotation>{''.join(objects)}</annotation>"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    defects = Defects()
    found = read_voc({"a": path}, defects)
    check_boxes(found)
    if found.records:
        assert len(found.records["a"].boxes) + entries(defects) == len(objects)
    else:
        assert entries(defects) == 1  # the file


@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(
    lambda text: f"<annotation>{text}</annotation>".encode(errors="surrogatepass")
)))  # fmt: skip
def test_bytes_as_xml(folder, content):
    (folder / "a.xml").write_bytes(content)
    defects = Defects()
    found = read_voc({"a": folder / "a.xml"}, defects)
    assert len(found.records) + sum(defects.counts()["errors"].values()) >= 1


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 99), st.floats(), WORDS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)
BOXES = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("x1", "y1", "x2", "y2"), st.one_of(st.integers(0, 30), JSON))
)
LABELS = st.one_of(
    st.fixed_dictionaries(
        {"category": st.one_of(st.sampled_from(["car", "bus"]), JSON)},
        optional={
            "box2d": st.one_of(BOXES, JSON),
            "attributes": st.one_of(st.fixed_dictionaries({"crowd": JSON}), JSON),
        },
    ),
    JSON,
)


@given(labels=st.lists(LABELS, max_size=6), repeat=st.booleans())
def test_labels_of_scalabel(folder, labels, repeat):
    labels = labels * (1 + repeat)
    path = folder / "labels.json"
    path.write_text(json.dumps([{"name": "a.jpg", "labels": labels}]))
    defects = Defects()
    found = read_scalabel(path, defects)
    check_boxes(found)
    boxless = defects.notes.get("labels without a box, left out", [])
    left_out = sum(int(line.rpartition(": ")[2]) for line in boxless)
    assert len(found.records["a"].boxes) + entries(defects) + left_out == len(labels)


@given(content=JSON)
def test_any_json_as_scalabel(folder, content):
    path = folder / "labels.json"
    path.write_text(json.dumps(content))
    try:
        check_boxes(read_scalabel(path, Defects()))
    except RainmerError as error:
        check_message(error)
