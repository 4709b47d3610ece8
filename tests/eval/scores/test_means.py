"""Means over classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.scores.means import mean_by_boxes, mean_over_classes

fractions = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(values=fractions, boxes=st.integers(1, 1000))
def test_classes_of_equal_size_count_alike(values, boxes):
    equal = np.full(len(values), boxes)
    assert mean_by_boxes(np.array(values), equal) == pytest.approx(
        mean_over_classes(np.array(values))
    )


@given(values=fractions, data=st.data())
def test_a_mean_lies_between_the_classes_and_ignores_those_without_a_value(values, data):
    boxes = data.draw(st.lists(st.integers(1, 99), min_size=len(values), max_size=len(values)))
    mean = mean_by_boxes(np.array(values), np.array(boxes))
    assert min(values) - 1e-12 <= mean <= max(values) + 1e-12
    with_gap = mean_by_boxes(np.array([*values, np.nan]), np.array([*boxes, 50]))
    assert with_gap == pytest.approx(mean)


def test_without_values_there_is_no_mean():
    assert np.isnan(mean_over_classes(np.zeros((2, 0)))).all()
    assert np.isnan(mean_by_boxes(np.array([np.nan]), np.array([3.0])))
