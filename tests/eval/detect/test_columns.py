"""The table of scores: order of its rows, its columns, and its form in a terminal."""

import math

import pytest

from eval.detect.columns import format_change, format_table
from eval.detect.model import Cost, TableRow, conditions, sort_rows
from eval.report.tables import UNDEFINED
from eval.scores.score import Score
from eval.scores.timing import Timing


def row(kind, derainer="", condition="all", **values):
    return TableRow(image_set="s", condition=condition, input=kind, derainer=derainer, **values)


def full(kind, derainer="", condition="all", mean_ap=0.2, delta=None):
    sizes = {f"mean_ap_{size}": mean_ap for size in ("small", "medium", "large")}
    change = Score() if delta is None else Score(delta, delta - 0.01, delta + 0.01)
    return row(
        kind,
        derainer,
        condition,
        mean_ap=mean_ap,
        change=change,
        recovered=0.5,
        mean_ap50=0.3,
        mean_ap75=0.1,
        mean_ar=0.4,
        psnr=20.0,
        ssim=0.5,
        tp=10,
        fp=2,
        fn=30,
        cost=Cost(derain=Timing(12.0, 13.0, 9), detect=Timing(3.0, 4.0, 9)),
        **sizes,
    )


def test_a_change_needs_both_ends_of_its_interval():
    assert format_change(Score(0.05, 0.01, 0.09)) == "+5.0 [1.0, 9.0]"
    assert format_change(Score(0.05, None, 0.09)) == "+5.0"
    assert format_change(Score()) == UNDEFINED


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
    labels = [(one.condition, one.label) for one in sort_rows(rows)]
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
    rows = [
        row("rainy", mean_ap=0.2, mean_ar=math.nan),
        row("derained", "x", mean_ap=0.3, change=Score(0.1)),
    ]
    head = format_table(rows).splitlines()[0]
    assert head.split() == ["input", "mAP", "Δ", "vs", "rainy", "[95", "%]"]


def test_table_keeps_sizes_when_only_one_is_defined():
    table = format_table([row("rainy", mean_ap=0.2, mean_ap_large=0.3)])
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
