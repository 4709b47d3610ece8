import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.report.strips import (
    COLORS,
    Mark,
    Panel,
    Strip,
    count_outcomes,
    draw_panel,
    encode_panel,
    panel_height,
)
from rainmer.frames.images import decode_image


def grey(height=100, width=150):
    return np.full((height, width, 3), 128, np.uint8)


def where(image, kind):
    """Return (rows, columns) of the pixels that have an outcome's colour."""
    return np.nonzero((image == COLORS[kind]).all(axis=2))


def line_of(image, kind, y, start, stop):
    return (image[y, start:stop] == COLORS[kind]).all(axis=1)


@pytest.mark.parametrize("scale", [1, 2])
def test_box_lands_on_its_scaled_place(scale):
    mark = Mark((40, 30, 90, 70), "found", "car", 0.9)
    image = draw_panel(grey(), [mark], 100 * scale)
    assert image.shape == (100 * scale, 150 * scale, 3)
    assert image.dtype == np.uint8
    rows, columns = where(image, "found")
    assert columns.min() == 40 * scale
    assert rows.max() == 70 * scale
    assert line_of(image, "found", 70 * scale, 40 * scale, 90 * scale + 1).all()
    inside = image[40 * scale : 60 * scale, 50 * scale : 80 * scale]
    assert (inside == 128).all(), "the inside of a box stays as it was"


def test_outcomes_differ_in_line_style():
    shares = {}
    for kind in COLORS:
        image = draw_panel(grey(), [Mark((20, 40, 130, 90), kind, "x")], 100)
        line = line_of(image, kind, 90, 20, 131)
        shares[kind] = line.mean()
        runs = int(np.abs(np.diff(line.astype(int))).sum())
        assert (runs == 0) == (kind == "found"), "only what is found has a solid line"
    assert shares["found"] == 1 > shares["missed"] > shares["false"]


def test_colors_differ_in_brightness():
    luma = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in COLORS.values()]
    assert min(abs(a - b) for i, a in enumerate(luma) for b in luma[:i]) > 25


def test_frame_is_not_changed():
    frame = grey()
    draw_panel(frame, [Mark((0, 0, 50, 50), "false", "x", 0.5)], 100)
    assert (frame == 128).all()


@given(
    st.tuples(*[st.floats(-300, 300)] * 4),
    st.sampled_from(sorted(COLORS)),
    st.integers(1, 90),
)
def test_any_box_can_be_drawn(corners, kind, height):
    frame = grey(60, 80)
    image = draw_panel(frame, [Mark(corners, kind, "a long label of a class", 0.5)], height)
    assert image.shape[0] == height
    assert len(where(image, kind)[0])


def test_labels_do_not_cover_each_other():
    one = draw_panel(grey(200, 300), [Mark((50, 80, 150, 160), "found", "car", 0.9)], 200)
    twice = [Mark((50, 80, 150, 160), "found", "car", 0.9)] * 2
    two = draw_panel(grey(200, 300), twice, 200)
    assert len(where(two, "found")[0]) > len(where(one, "found")[0])


def test_small_boxes_of_a_crowd_have_no_label():
    boxes = [(10 + 25 * i, 50, 20 + 25 * i, 60) for i in range(10)]
    crowd = [Mark(box, "missed", "person") for box in boxes]
    few, many = (draw_panel(grey(100, 300), marks, 100) for marks in (crowd[:3], crowd))
    above = slice(30, 49)
    assert len(where(few[above], "missed")[0])
    assert not len(where(many[above], "missed")[0])


def test_names_that_no_font_has_become_numbers_with_a_legend():
    boxes = {"\udcff": 7, "car": 2, "": 0}
    marks = [Mark((20, 40, 90, 80), "found", name, 0.5, number) for name, number in boxes.items()]
    assert [mark.shown for mark in marks] == ["7", "car", "0"]
    strip = Strip("a.jpg", "all", "prenet", 1.0, [Panel("rainy", grey(), marks)])
    assert strip.numbered == {"0": "", "7": "\udcff"}
    number = Mark((20, 40, 90, 80), "found", "7", 0.5)
    assert np.array_equal(*(draw_panel(grey(), [mark], 100) for mark in (marks[0], number)))


def test_counts_name_what_there_is():
    marks = [Mark((0, 0, 1, 1), kind, "x") for kind in ("missed", "found", "found")]
    assert count_outcomes(marks) == "2 found, 1 missed"
    assert count_outcomes([]) == "no boxes"


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (100, 3000), (1, 5000)])
def test_panels_fit_a_report(height, width):
    fitted = panel_height(np.zeros((height, width, 3), np.uint8))
    assert 1 <= fitted <= 384
    assert fitted == 1 or width * fitted / height < 513 + width / height


def test_a_strip_says_what_changed():
    changes = {gain: Strip("a.jpg", "all", "prenet", gain, []).change for gain in (2.0, -1.0, 0.0)}
    assert changes == {2.0: "+2 correct detections", -1.0: "-1 correct detection", 0.0: "no change"}


def test_panel_becomes_a_jpeg():
    content = encode_panel(Panel("rainy", grey(), [Mark((10, 10, 50, 50), "found", "x", 0.5)]))
    assert content.startswith(b"\xff\xd8")
    assert decode_image(content).shape[0] == panel_height(grey())


def test_the_source_of_a_page_is_the_jpeg():
    panel = Panel("rainy", grey())
    start, _, content = panel.source.partition(",")
    assert start == "data:image/jpeg;base64"
    assert base64.b64decode(content) == encode_panel(panel)
