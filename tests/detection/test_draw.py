import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.draw import class_color, draw_detections, side_by_side
from detection.types import Detections


def test_box_is_drawn_in_the_color_of_its_class_and_the_frame_is_kept():
    frame = np.zeros((100, 160, 3), np.uint8)
    detections = Detections([[40, 50, 120, 90]], [0.8], [2])

    drawn = draw_detections(frame, detections, {2: "car"})

    assert not frame.any()
    assert tuple(drawn[90, 80]) == class_color(2)
    assert not drawn[55:85, 45:115].any()
    assert drawn[30:50, 40:90].any()  # the label above it


def test_nothing_found_draws_nothing():
    frame = np.full((8, 9, 3), 7, np.uint8)

    assert np.array_equal(draw_detections(frame, Detections(), {}), frame)


@settings(max_examples=30, deadline=None)
@given(
    size_hw=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    box=st.lists(st.floats(-50, 130), min_size=4, max_size=4),
    name=st.text(st.characters()),
)
def test_any_box_of_any_name_on_any_frame(size_hw, box, name):
    frame = np.zeros((*size_hw, 3), np.uint8)

    drawn = draw_detections(frame, Detections([box], [0.5], [79]), {79: name})

    assert drawn.shape == frame.shape
    assert side_by_side([drawn], [name]).shape[1] == size_hw[1]


@pytest.mark.parametrize("name", ["\udcff", "", "\n"])
def test_a_name_that_cannot_be_drawn_shows_its_number(name):
    frame, detections = (
        np.zeros((100, 160, 3), np.uint8),
        Detections([[40, 50, 99, 90]], [0.8], [2]),
    )

    drawn = draw_detections(frame, detections, {2: name})

    assert np.array_equal(drawn, draw_detections(frame, detections, {2: "2"}))
    assert not np.array_equal(drawn, draw_detections(frame, detections, {2: "3"}))


def test_a_long_name_is_cut():
    frame, detections = np.zeros((100, 999, 3), np.uint8), Detections([[1, 50, 99, 90]], [0.8], [2])
    drawn = [draw_detections(frame, detections, {2: "n" * count}) for count in (50, 90)]

    assert np.array_equal(*drawn)
    assert not drawn[0][:49, 600:].any()


def test_colors_of_80_classes_differ():
    assert len({class_color(label) for label in range(80)}) == 80


def test_side_by_side_keeps_the_pictures():
    left, right = np.full((40, 60, 3), 10, np.uint8), np.full((40, 30, 3), 200, np.uint8)

    composed = side_by_side([left, right], ["rainy", "derained"])

    height, width = composed.shape[:2]
    assert height > 40
    assert width > 90
    assert np.array_equal(composed[-40:, :60], left)
    assert np.array_equal(composed[-40:, -30:], right)
    assert (composed[: height - 40] < 128).any()  # the captions


def test_captions_must_fit():
    with pytest.raises(ValueError, match="caption per frame"):
        side_by_side([np.zeros((4, 4, 3), np.uint8)], [])


def test_numbers_of_objects_are_drawn_where_there_are_some():
    frame = np.zeros((60, 80, 3), np.uint8)
    found = Detections([[10, 20, 60, 50]], [0.5], [2])
    plain, followed, lost = (
        draw_detections(frame, found, {2: "car"}, tracks)
        for tracks in (None, np.array([7]), np.array([-1]))
    )
    assert np.array_equal(plain, lost)
    assert not np.array_equal(plain, followed)
