"""What options accept; commands themselves are tested where they are."""

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainmer.cli import positive_number, size_hw


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 2))
def test_sizes_are_height_times_width(height, width, zeros):
    assert size_hw(f"{height}x{width}") == (height, width)
    assert size_hw(f"{'0' * zeros}{height}x{'0' * zeros}{width}") == (height, width)


@pytest.mark.parametrize("text", ["", "384", "0x640", "384x0", "384x640x3", "-1x2", "1.5x2", "٣x٤"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected HEIGHTxWIDTH"):
        size_hw(text)


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan"])
def test_what_is_no_number_above_0_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="above 0"):
        positive_number(text)
