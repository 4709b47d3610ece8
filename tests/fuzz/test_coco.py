"""COCO JSON of any content: never a traceback, never a silent drop."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainmer.data.annotations.coco import read_coco
from rainmer.data.defects import Defects
from rainmer.errors import RainmerError
from tests.fuzz.test_labels import JSON, REPEAT, check_boxes, check_message

IDS = st.one_of(
    st.integers(-1, 4), st.sampled_from(["0", "1", "2.0", "a", "b c", "é", "\0", "\n", ""])
)
NAMES = st.sampled_from(
    ["a.jpg", "A.png", "x/a.jpg", "b.jpg", "c\\b.jpg", "\n.jpg", "http://h/d.jpg", ".", ""]
)
SIDES = st.one_of(st.sampled_from([24, 40, "24", 40.0, None]), JSON)
NUMBERS = st.one_of(st.integers(-3, 40), st.sampled_from(["7", "1e1", "1,5", 2.5]), JSON)
RUNS = st.one_of(
    st.lists(st.integers(-1, 960), max_size=5),
    st.text("0123456789PQRSabcdo^_ é", max_size=12),
    JSON,
)
MASKS = st.one_of(
    st.lists(st.lists(NUMBERS, max_size=9), max_size=3),
    st.lists(NUMBERS, max_size=9),
    st.fixed_dictionaries(
        {"size": st.one_of(st.just([24, 40]), st.lists(SIDES, max_size=3)), "counts": RUNS}
    ),
    JSON,
)


def mostly(common, rare):
    return st.one_of(common, common, common, rare)


IMAGES = st.fixed_dictionaries(
    {"id": IDS, "file_name": mostly(NAMES, JSON)},
    optional={"height": SIDES, "width": SIDES, "attributes": JSON},
)
CATEGORIES = st.fixed_dictionaries({"id": IDS, "name": mostly(st.sampled_from("xyz"), JSON)})
ANNOTATIONS = st.one_of(
    st.fixed_dictionaries(
        {
            "image_id": mostly(IDS, JSON),
            "category_id": mostly(IDS, JSON),
            "bbox": mostly(st.lists(NUMBERS, min_size=4, max_size=4), JSON),
        },
        optional={"id": JSON, "area": NUMBERS, "iscrowd": NUMBERS, "segmentation": MASKS},
    ),
    st.fixed_dictionaries({"image_id": IDS, "category_id": IDS, "segmentation": MASKS}),
    JSON,
)
PLAIN_IMAGES = [
    {"id": 1, "file_name": "a.jpg", "height": 24, "width": 40},
    {"id": "b c", "file_name": "b.jpg"},
    {"id": 2, "file_name": "c.jpg"},
]
PLAIN_CATEGORIES = [{"id": 0, "name": "x"}, {"id": "a", "name": "y"}]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("coco") / "instances.json"


def kept_boxes(found):
    return sum(len(record.boxes) for record in found.records.values())


@given(annotations=st.lists(ANNOTATIONS, max_size=8), repeat=st.booleans())
def test_every_annotation_is_kept_or_counted(path, annotations, repeat):
    annotations = annotations * (1 + repeat)
    content = {"images": PLAIN_IMAGES, "categories": PLAIN_CATEGORIES, "annotations": annotations}
    path.write_text(json.dumps(content))
    defects = Defects()
    found = read_coco(path, defects)
    check_boxes(found)
    counts = defects.counts()
    dropped = sum(counts["errors"].values()) + counts["repairs"].get(REPEAT, 0)
    unlisted = counts["notes"].get("annotation of an image that is not listed", 0)
    assert kept_boxes(found) + dropped + unlisted == len(annotations)


@given(
    images=st.lists(IMAGES, max_size=4),
    categories=st.lists(CATEGORIES, max_size=3),
    annotations=st.lists(ANNOTATIONS, max_size=4),
)
def test_any_entries(path, images, categories, annotations):
    content = {"images": images, "categories": categories, "annotations": annotations}
    path.write_text(json.dumps(content))
    defects = Defects()
    try:
        found = read_coco(path, defects)
    except RainmerError as error:
        check_message(error)
        return
    check_boxes(found)
    listed = "image listed twice in the annotations"
    merged = "image listed twice under one id, the first counts"
    twice = [*defects.errors.get(listed, []), *defects.repairs.get(merged, [])]
    assert len(found.records) + len(twice) == len(images)
    numbers = [record.image_id for record in found.records.values()]
    assert len(set(numbers)) == len(numbers)


@given(content=st.one_of(JSON, st.fixed_dictionaries(dict.fromkeys(
    ("images", "annotations", "categories"), JSON
))))  # fmt: skip
def test_any_json(path, content):
    path.write_text(json.dumps(content))
    try:
        check_boxes(read_coco(path, Defects()))
    except RainmerError as error:
        check_message(error)


@given(content=st.binary(max_size=300))
def test_any_bytes(path, content):
    path.write_bytes(content)
    with pytest.raises(RainmerError):
        read_coco(path, Defects())
