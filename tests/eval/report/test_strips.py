import base64
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.report.strips import COLORS, DETAILS, Detail, Mark, Panel, Strip, count_outcomes
from rainmer.frames.images import decode_image


def grey(height=100, width=150):
    return np.full((height, width, 3), 128, np.uint8)


def place_of(mark, frame):
    ((_, place),) = Panel("rainy", frame, [mark]).boxes
    return {
        name: float(value.rstrip("%"))
        for name, _, value in (part.partition(":") for part in place.split(";"))
    }


def test_a_box_lies_on_its_place():
    place = place_of(Mark((30, 25, 90, 75), "found", "car", 0.9), grey())
    assert place == {"left": 20, "top": 25, "width": 40, "height": 50}


@given(st.tuples(*[st.floats(-300, 300)] * 4), st.sampled_from(sorted(COLORS)))
def test_any_box_stays_inside_of_its_picture(corners, kind):
    place = place_of(Mark(corners, kind, "a class"), grey(60, 80))
    assert min(place.values()) >= 0
    assert place["left"] + place["width"] <= 100.01
    assert place["top"] + place["height"] <= 100.01


def test_rare_outcomes_lie_on_top():
    marks = [Mark((0, 0, 9, 9), kind, "x") for kind in ("false", "found", "missed")]
    kinds = [mark.kind for mark, _ in Panel("rainy", grey(), marks).boxes]
    assert kinds == ["found", "missed", "false"]


def test_a_box_says_class_and_confidence():
    assert Mark((0, 0, 9, 9), "found", "car", 0.914).text == "car 0.91"
    assert Mark((0, 0, 9, 9), "missed", "车").text == "车"
    assert len(Mark((0, 0, 9, 9), "missed", "x" * 90).text) < 30


def test_colors_differ_in_brightness():
    luma = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in COLORS.values()]
    assert min(abs(a - b) for i, a in enumerate(luma) for b in luma[:i]) > 25


def test_counts_name_what_there_is():
    marks = [Mark((0, 0, 1, 1), kind, "x") for kind in ("missed", "found", "found")]
    assert count_outcomes(marks) == "2 found, 1 missed"
    assert count_outcomes([]) == "no boxes"


def test_a_strip_says_what_changed():
    changes = {gain: Strip("a.jpg", "all", "prenet", gain, []).change for gain in (2.0, -1.0, 0.0)}
    assert changes == {2.0: "+2 correct detections", -1.0: "-1 correct detection", 0.0: "no change"}


@pytest.mark.parametrize(
    ("detail", "size"),
    [(DETAILS[0], (500, 750)), (Detail(0.5, 75), (250, 375)), (DETAILS[-1], (64, 96))],
)
def test_a_picture_is_as_large_as_its_page_can_hold(detail, size):
    start, _, content = Panel("rainy", grey(500, 750)).source(detail).partition(",")
    assert start == "data:image/jpeg;base64"
    assert decode_image(base64.b64decode(content)).shape == (*size, 3)


def test_details_become_less():
    assert all(a.scale >= b.scale and a.quality >= b.quality for a, b in pairwise(DETAILS))
