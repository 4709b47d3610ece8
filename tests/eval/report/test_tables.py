import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.report.tables import (
    UNDEFINED,
    conditions,
    format_count,
    format_db,
    format_delta,
    format_interval,
    format_ms,
    format_percent,
    format_points,
    format_share,
    format_ssim,
    format_table,
    number,
    row_label,
    shorten,
    sort_rows,
    typographic,
)


def row(kind, derainer="", condition="all", **values):
    return {"set": "s", "condition": condition, "input": kind, "derainer": derainer, **values}


def full(kind, derainer="", condition="all", mean_ap=0.2, delta=None):
    sizes = {f"mAP_{size}": mean_ap for size in ("small", "medium", "large")}
    interval = {} if delta is None else {"ci_low": delta - 0.01, "ci_high": delta + 0.01}
    return row(
        kind,
        derainer,
        condition,
        mAP=mean_ap,
        delta_mAP=delta,
        recovered=0.5,
        mAP50=0.3,
        mAP75=0.1,
        AR=0.4,
        psnr=20.0,
        ssim=0.5,
        tp=10,
        fp=2,
        fn=30,
        ms_derain=12.0,
        ms_detect=3.0,
        **sizes,
        **interval,
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


def test_interval_and_delta_need_both_ends():
    assert format_interval(-0.012, 0.018) == "[-1.2, 1.8]"
    assert format_interval(None, 0.018) == ""
    assert format_delta({"delta_mAP": 0.05, "ci_low": 0.01, "ci_high": 0.09}) == "+5.0 [1.0, 9.0]"
    assert format_delta({"delta_mAP": 0.05, "ci_low": None, "ci_high": 0.09}) == "+5.0"
    assert format_delta({"delta_mAP": None}) == UNDEFINED


def test_minus_signs_stand_only_before_numbers():
    assert typographic("-0.8 [-3.3, 1.9]") == "−0.8 [−3.3, 1.9]"
    assert typographic("rain-100h 2026-11-22 w:-1 a/-2") == "rain-100h 2026-11-22 w:-1 a/-2"


@given(st.text(max_size=60), st.integers(min_value=5, max_value=40))
def test_shorten_keeps_the_limit_and_both_ends(text, limit):
    short = shorten(text, limit)
    assert len(short) <= limit
    assert short == text or (short[:2] == text[:2] and short[-2:] == text[-2:])


def test_rows_are_ordered_for_reading():
    rows = [
        row("derained_clean", "prenet"),
        row("clean"),
        row("derained", "prenet", "night"),
        row("derained", "prenet"),
        row("derained", "median"),
        row("rainy", condition="night"),
        row("rainy"),
    ]
    labels = [(one["condition"], row_label(one)) for one in sort_rows(rows)]
    assert labels == [
        ("all", "rainy"),
        ("all", "median"),
        ("all", "prenet"),
        ("all", "clean"),
        ("all", "prenet on clean"),
        ("night", "rainy"),
        ("night", "prenet"),
    ]
    assert conditions(rows) == ["all", "night"]


def test_table_shows_percent_points_and_interval():
    rows = [full("rainy", mean_ap=0.202), full("derained", "prenet", mean_ap=0.389, delta=0.187)]
    lines = format_table(rows, width=200).splitlines()
    assert lines[0].split("  ")[0] == "input"
    assert lines[2].startswith("rainy")
    assert "20.2" in lines[2]
    assert "38.9  +18.7 [17.7, 19.7]" in lines[3]
    assert "10/2/30" in lines[3]
    assert len({len(line) for line in lines[:4]}) == 1


def test_table_drops_what_no_row_defines():
    rows = [row("rainy", mAP=0.2, AR=math.nan), row("derained", "x", mAP=0.3, delta_mAP=0.1)]
    head = format_table(rows).splitlines()[0]
    assert head.split() == ["input", "mAP", "Δ", "vs", "rainy", "[95", "%]"]


def test_table_keeps_sizes_when_only_one_is_defined():
    table = format_table([row("rainy", mAP=0.2, mAP_large=0.3)])
    assert "–/–/30.0" in table


@pytest.mark.parametrize("width", [70, 80, 100, 120, 160])
def test_table_fits_by_dropping_the_least_important(width):
    rows = [full("rainy"), *(full(kind, "n" * 60, delta=0.1) for kind in ("derained", "clean"))]
    lines = format_table(rows, width=width).splitlines()
    assert max(map(len, lines[:-1])) <= width
    assert "mAP" in lines[0]
    assert "Δ vs rainy" in lines[0]
    if "TP/FP/FN" in lines[0]:
        assert "AP s/m/l" in lines[0]


def test_condition_column_appears_with_conditions():
    table = format_table([full("rainy", condition="night"), full("rainy", condition="all")])
    first, second = table.splitlines()[2:4]
    assert first.startswith("all ")
    assert second.startswith("night ")


def test_footnote_tells_the_reference_of_derained_clean_rows():
    rows = [full("rainy"), full("clean")]
    assert "against clean" not in format_table(rows)
    harm = full("derained_clean", "x", delta=-0.03)
    assert "Δ against clean, not rainy" in format_table([*rows, harm])


def test_empty_table_has_only_its_head():
    assert format_table([]).startswith("input")
