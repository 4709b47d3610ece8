import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.report.tables import (
    UNDEFINED,
    align_table,
    format_count,
    format_db,
    format_interval,
    format_ms,
    format_percent,
    format_points,
    format_share,
    format_ssim,
    number,
    shorten,
    typographic,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (math.nan, None),
        (math.inf, None),
        ("0.3", None),
        (0, 0.0),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7.0),
    ],
)
def test_number_takes_only_finite_numbers(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        (format_percent, 0.38949, "38.9"),
        (format_percent, 0, "0.0"),
        (format_percent, -0.0001, "0.0"),
        (format_points, 0.187, "+18.7"),
        (format_points, -0.034, "-3.4"),
        (format_points, -0.0004, "0.0"),
        (format_points, np.float64(0.0004), "0.0"),
        (format_share, 0.528, "53 %"),
        (format_share, 1.04, "104 %"),
        (format_db, 22.8049, "22.80"),
        (format_ssim, 0.70712, "0.7071"),
        (format_ms, 9.04, "9.0"),
        (format_ms, 99.96, "100"),
        (format_ms, 1234.4, "1234"),
        (format_count, 929, "929"),
    ],
)
def test_formats(text, value, expected):
    assert text(value) == expected
    assert text(None) == text(math.nan) == UNDEFINED


def test_an_interval_needs_both_ends():
    assert format_interval(-0.012, 0.018) == "[-1.2, 1.8]"
    assert format_interval(None, 0.018) == ""


def test_minus_signs_stand_only_before_numbers():
    assert typographic("-0.8 [-3.3, 1.9]") == "−0.8 [−3.3, 1.9]"
    assert typographic("rain-100h 2026-11-22 w:-1 a/-2") == "rain-100h 2026-11-22 w:-1 a/-2"


@given(st.text(max_size=60), st.integers(min_value=5, max_value=40))
def test_shorten_keeps_the_limit_and_both_ends(text, limit):
    short = shorten(text, limit)
    assert len(short) <= limit
    assert short == text or (short[:2] == text[:2] and short[-2:] == text[-2:])


def test_a_table_is_aligned_in_any_encoding(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    lines = align_table(["name", "Δ", "n"], [["雨\n", "–", "10"], ["car", "1.0", "9"]], 1)
    assert lines.splitlines() == [
        "name    delta   n",
        "-----------------",
        r"\u96e8      -  10",
        "car       1.0   9",
    ]
