"""The part of the report on operating points: what is found and invented at one confidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.detect.figures import color_of_row, derainer_series, key_of_row
from eval.detect.model import conditions, find_row, sort_rows
from eval.detect.operating import OperatingRow
from eval.report.figures import WIDTH, beside, draw_chart, short, spread_legend
from eval.report.parts import Cell, Chart, Effect, Group, Line, Table, effect_of
from eval.report.tables import UNDEFINED, format_count, format_fixed, format_with_interval, number
from eval.scores.operating import Point
from eval.scores.score import Score
from rainmer.figures import INK, draw_grid, styled

__all__ = [
    "OperatingSection",
    "f1_falls",
    "first_points",
    "operating_charts",
    "operating_section",
    "operating_sentence",
]

_POINT = ("from", "found", "false", "F1")
_CHANGES = ("F1 [95 %]", "recall at equal false alarms [95 %]", "best F1 [95 %]")
_CAPTION = (
    "All classes together at IoU 0.5. Dots: the confidence of the counts ({conf}). Rings: the "
    "highest F1. First chart: each step to the right finds more and lowers the confidence. Second: "
    "a curve that is higher elsewhere than at the dashed line asks for another threshold."
)


@dataclass(frozen=True, kw_only=True)
class OperatingSection:
    """What `operating.html` shows.

    Attributes:
        points: Counts of every row at the three confidences.
        changes: Their changes with intervals; None without any.
        charts: Precision against recall, and F1 against confidence, of each condition.
    """

    points: Table
    changes: Table | None
    charts: Sequence[Chart]


def format_conf(conf: float) -> str:
    """Format a confidence with the digits that it needs, at least two."""
    return f"{conf:.2f}" if round(conf, 2) == conf else f"{conf:g}"


def _format_f1(value: object) -> str:
    finite = number(value)
    return UNDEFINED if finite is None else format_fixed(finite, 3)


def operating_section(
    rows: Sequence[OperatingRow],
    titles: Mapping[str, str],
    is_small: Callable[[str], bool],
) -> OperatingSection | None:
    """Prepare the section for the template `operating.html`; None without rows.

    Args:
        rows: Operating points of all rows and conditions.
        titles: What each condition is called.
        is_small: Tells whether a condition has too few images to judge a change.
    """
    if not rows:
        return None
    rows = sort_rows(rows)
    groups, changes, series = [], [], derainer_series(rows)
    for condition in conditions(rows):
        members = [row for row in rows if row.condition == condition]
        groups.append(Group(_lines(members, is_small(condition)), titles[condition]))
        lines = [
            Line([row.label], _change_cells(row, is_small(condition)), key=key_of_row(row, series))
            for row in members
            if row.points.change_f1.value is not None
        ]
        if lines:
            changes.append(Group(lines, titles[condition]))
    return OperatingSection(
        points=_table(groups, rows[0].points.at.conf),
        changes=Table(
            about="Changes of F1 and recall against rainy, on clean images against clean",
            texts=["input"],
            numbers=_CHANGES,
            groups=changes,
        )
        if changes
        else None,
        charts=operating_charts(rows, titles),
    )


def first_points(rows: Sequence[OperatingRow], condition: str, *, small: bool) -> Table | None:
    """Return the table of the first screen: a condition's rows, without derained clean images."""
    chosen = [
        row
        for row in sort_rows(rows)
        if row.condition == condition and row.input != "derained_clean"
    ]
    return _table([Group(_lines(chosen, small))], chosen[0].points.at.conf) if chosen else None


def _table(groups: Sequence[Group], conf: float) -> Table:
    return Table(
        about="Objects found and false detections at three confidences",
        texts=["input"],
        numbers=_POINT,
        groups=groups,
        spans=(
            f"at confidence {format_conf(conf)}",
            "with no more false ones than rainy",
            "at the best F1",
        ),
    )


def _lines(rows: Sequence[OperatingRow], small: bool) -> list[Line]:
    series = derainer_series(rows)
    return [
        Line(
            [row.label],
            [
                *_point_cells(row, row.points.at, row.points.change_f1, small),
                *_point_cells(row, row.points.equal, row.points.change_recall, small),
                *_point_cells(row, row.points.best, row.points.change_best_f1, small),
            ],
            {"control": None} if row.is_control and row.input == "derained" else {},
            key=key_of_row(row, series),
        )
        for row in rows
    ]


def _point_cells(row: OperatingRow, point: Point | None, change: Score, small: bool) -> list[Cell]:
    """Return from which confidence, found, false, and F1.

    Of these the one that the change is of has its colour; rain, not a derainer, makes the clean row
    differ, so it has none.
    """
    if point is None:
        return [Cell(UNDEFINED)] * len(_POINT)
    on_f1 = point is not row.points.equal
    is_judged = row.input != "clean" and number(change.value) is not None
    effect = _judged(change, small) if is_judged else None
    note = _format_change(change) if effect else ""
    return [
        Cell(format_conf(point.conf)),
        Cell(format_count(point.found), None if on_f1 else effect, "" if on_f1 else note),
        Cell(format_count(point.false)),
        Cell(_format_f1(point.f1), effect if on_f1 else None, note if on_f1 else ""),
    ]


def _judged(change: Score, small: bool) -> Effect:
    return "unclear" if small else effect_of(change)


def _format_change(change: Score) -> str:
    return format_with_interval(change, 3, sign="+")


def _change_cells(row: OperatingRow, small: bool) -> list[Cell]:
    points = row.points
    return [
        Cell(_format_change(change), _judged(change, small))
        for change in (points.change_f1, points.change_recall, points.change_best_f1)
    ]


def f1_falls(rows: Sequence[OperatingRow], condition: str, derainer: str) -> str:
    """Say that F1 falls at the confidence of the counts, if it does beyond chance; else empty."""
    row = find_row(rows, condition, "derained", derainer)
    rainy = find_row(rows, condition, "rainy")
    if row is None or rainy is None or effect_of(row.points.change_f1) != "harms":
        return ""
    at, before = row.points.at, rainy.points.at
    return (
        f"at confidence {format_conf(at.conf)} F1 falls from {_format_f1(before.f1)} to "
        f"{_format_f1(at.f1)}, with {at.false} false detections instead of {before.false}"
    )


def operating_sentence(
    rows: Sequence[OperatingRow], condition: str, derainer: str, *, small: bool
) -> str:
    """Say what a derainer changes at the user's confidence, and at which it is used best.

    Args:
        rows: Operating points of all rows.
        condition: On which images.
        derainer: The derainer.
        small: Whether these are too few to judge a change.

    Returns:
        Sentences; empty without the row, or without objects.
    """
    row = find_row(rows, condition, "derained", derainer)
    rainy = find_row(rows, condition, "rainy")
    if row is None or rainy is None or row.points.at.f1 is None or rainy.points.at.f1 is None:
        return ""
    at, before, equal = row.points.at, rainy.points.at, row.points.equal
    text = (
        f"At confidence {format_conf(at.conf)}, {derainer} finds {at.found} objects instead of "
        f"{before.found}, with {at.false} false detections instead of {before.false}: "
        f"{_f1_words(before, at, _judged(row.points.change_f1, small))}."
    )
    if equal is None:
        text += f" It has more than {before.false} at every confidence."
    else:
        text += (
            f" With no more than {before.false} false ones, from {format_conf(equal.conf)} on, it "
            f"finds {equal.found}."
        )
    best, other = row.points.best, rainy.points.best
    words = _f1_words(other, best, _judged(row.points.change_best_f1, small))
    confs = f"{format_conf(best.conf)} and {format_conf(other.conf)}"
    return f"{text} Each at its best confidence, {confs}: {words}."


def _f1_words(before: Point, after: Point, effect: Effect) -> str:
    levels = f"from {_format_f1(before.f1)} to {_format_f1(after.f1)}"
    if effect == "unclear" and _format_f1(before.f1) == _format_f1(after.f1):
        return f"F1 stays at {_format_f1(after.f1)}"
    words = {"helps": f"F1 rises {levels}", "harms": f"F1 falls {levels}"}
    unclear = f"F1 goes {levels}, which may be chance"
    return words.get(effect, unclear)


def operating_charts(rows: Sequence[OperatingRow], titles: Mapping[str, str]) -> list[Chart]:
    """Draw each condition's curves: precision against recall, and F1 against confidence."""
    series = derainer_series(rows)
    charts: list[Chart] = []
    for condition in conditions(rows):
        shown = [
            row for row in rows if row.condition == condition and row.input != "derained_clean"
        ]
        if not any(row.points.curve.objects for row in shown):
            continue
        alt = f"Precision against recall, and F1 against confidence: {titles[condition]}"
        caption = _CAPTION.format(conf=format_conf(shown[0].points.at.conf))
        draw, name = partial(operating_curves, shown, series), f"operating-{len(charts)}"
        chart = draw_chart(draw, name, alt, caption, titles[condition])
        charts += [chart] if chart else []
    return charts


@styled
def operating_curves(
    rows: Sequence[OperatingRow], series: Mapping[str, str], width: float = WIDTH
) -> Figure:
    """Draw precision against recall, and F1 against confidence: a line for each row.

    Args:
        rows: Rows of one condition, at least one of them with objects.
        series: Colour of each derainer, from `derainer_series`.
        width: Of the figure in inches.
    """
    figure = Figure(figsize=(width, 3.7 if width >= WIDTH else 5.6), layout="constrained")
    left, right = beside(figure, 2, width)
    entries = []
    for row in rows:
        color = color_of_row(row, series)
        style = (0, (4, 2)) if row.is_control else "solid"
        curve = row.points.curve
        left.plot(100 * curve.recall, 100 * curve.precision, color=color, ls=style, lw=1.7)
        right.plot(curve.confs, curve.f1, color=color, ls=style, lw=1.7)
        _mark(left, right, row, color)
        entries.append(Line2D([], [], color=color, ls=style, lw=1.7, label=short(row.label, width)))
    right.axvline(rows[0].points.at.conf, color=INK, lw=1, ls=(0, (4, 3)), alpha=0.75)
    for axes, across, up in (
        (left, "recall (%)", "precision (%)"),
        (right, "confidence", "F1"),
    ):
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        draw_grid(axes)
    left.set_xlim(0, 100)
    left.set_ylim(0, 102)
    right.set_xlim(0, 1)
    right.set_ylim(0, None)
    spread_legend(figure, entries, width, 5)
    return figure


def _mark(left: Axes, right: Axes, row: OperatingRow, color: str) -> None:
    """Mark the confidence of the counts by a dot, and that of the best F1 by a ring."""
    curve = row.points.curve
    for point, face in ((row.points.at, color), (row.points.best, "none")):
        k = int(np.searchsorted(curve.confs, point.conf))
        for axes, x, y in (
            (left, 100 * curve.recall[k], 100 * curve.precision[k]),
            (right, point.conf, curve.f1[k]),
        ):
            axes.plot(x, y, "o", color=color, markerfacecolor=face, markersize=7, mew=1.5)
