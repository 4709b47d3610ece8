"""The part of the report on errors by kind: a chart, and tables of errors and changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.detect.diagnosis import Diagnosis
from eval.detect.model import ChangeRow, ErrorRow, conditions, sort_rows
from eval.report.figures import INK, styled, to_svg
from eval.report.tables import format_count, format_points, shorten
from eval.scores.coco import AREAS
from eval.scores.errors import EVERY, KINDS, ErrorKind

__all__ = ["breakdown_section", "error_bars"]

_COLORS: dict[ErrorKind, str] = {
    "classification": "#5a8dd6",
    "localisation": "#a86cc4",
    "both": "#8a8f98",
    "duplicate": "#37a3c2",
    "background": "#d9603b",
    "missed": "#d3a027",
}
_WIDTH = 9.2
_ROW_HEIGHT = 0.34
_LONGEST_NAME = 34
_ON_COLOR = "#10181f"  # stays dark on a dark page, for the segments keep their colours
_READABLE = 0.035  # of the axis: a narrower segment has no room for its number
_CHANGE_TITLES = ("found", "lost", "background gained", "background removed")


@dataclass(frozen=True)
class KindTable:
    """A table with a column for each kind of error; `groups` of lines, each a label and cells."""

    caption: str
    groups: Sequence[tuple[str, Sequence[tuple[str, Sequence[str]]]]]


@dataclass(frozen=True, kw_only=True)
class BreakdownSection:
    """What `breakdown.html` shows.

    Attributes:
        main: The condition of the chart and of the tables by size.
        chart: Number of errors by kind, as SVG.
        costs: What AP50 gains without the errors of a kind.
        counts: Numbers of errors.
        sizes: Both by size of the objects.
        changes: Condition, label of the row, and a cell for each of `change_titles`.
    """

    main: str
    chart: Markup
    costs: KindTable
    counts: KindTable
    sizes: KindTable
    changes: Sequence[tuple[str, str, Sequence[str]]]
    kinds: Sequence[str] = KINDS
    change_titles: Sequence[str] = _CHANGE_TITLES


def breakdown_section(diagnosis: Diagnosis) -> BreakdownSection | None:
    """Prepare the section for the template `breakdown.html`; None without errors to show.

    Args:
        diagnosis: Of all rows of a comparison.
    """
    rows = sort_rows(diagnosis.errors)
    if not rows:
        return None
    main = conditions(rows)[0]
    figure = error_bars(diagnosis.errors, main)
    sizes = [(f"{size} objects", size) for size in AREAS[1:]]
    return BreakdownSection(
        main=main,
        chart=Markup(to_svg(figure, "errors", "Number of errors of each kind, row by row")),
        costs=KindTable(
            "What AP50 gains if all errors of one kind are corrected, in points",
            _groups(rows, [(EVERY, EVERY)], _cost),
        ),
        counts=KindTable(
            "Errors at the confidence of the counts", _groups(rows, [(EVERY, EVERY)], _count)
        ),
        sizes=KindTable(
            "By size of object: errors, and what AP50 of that size gains in points",
            _groups(_of_condition(rows, main), sizes, _count_and_cost),
        ),
        changes=[
            (row.condition, row.label, _change_cells(row))
            for row in sort_rows(diagnosis.changes)
            if row.class_name == row.size == EVERY
        ],
    )


def _change_cells(row: ChangeRow) -> list[str]:
    counts = (row.found, row.lost, row.background_gained, row.background_removed)
    return [format_count(count) for count in counts]


def _of_condition(rows: Sequence[ErrorRow], condition: str) -> list[ErrorRow]:
    return [row for row in rows if row.condition == condition]


def _groups(
    rows: Sequence[ErrorRow], sizes: Sequence[tuple[str, str]], text: Callable[[ErrorRow], str]
) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Return a group of lines for each condition and size: a label and a cell for each kind."""
    lines: dict[str, dict[str, dict[ErrorKind, str]]] = {}
    for name in conditions(rows):
        for title, size in sizes:
            group = name if size == EVERY else title
            for row in _of_condition(rows, name):
                if row.class_name == EVERY and row.size == size:
                    cells = lines.setdefault(group, {}).setdefault(row.label, {})
                    cells[row.kind] = text(row)
    return [
        (group, [(label, [cells[kind] for kind in KINDS]) for label, cells in table.items()])
        for group, table in lines.items()
    ]


def _count(row: ErrorRow) -> str:
    return format_count(row.count)


def _cost(row: ErrorRow) -> str:
    return format_points(row.gain_ap50)


def _count_and_cost(row: ErrorRow) -> str:
    return f"{_count(row)} ({_cost(row)})"


@styled
def error_bars(rows: Sequence[ErrorRow], condition: str) -> Figure:
    """Draw the number of errors of each row of a condition as bars, stacked by kind.

    Args:
        rows: `errors` of a diagnosis, at least one of the condition.
        condition: Which images.
    """
    counts: dict[str, dict[ErrorKind, int]] = {}
    for row in sort_rows(_of_condition(rows, condition)):
        if row.class_name == row.size == EVERY:
            counts.setdefault(row.label, {})[row.kind] = row.count
    figure = Figure(figsize=(_WIDTH, _ROW_HEIGHT * len(counts) + 1.1), layout="constrained")
    axes = figure.add_subplot()
    longest = max((sum(by_kind.values()) for by_kind in counts.values()), default=0) or 1
    for position, by_kind in enumerate(counts.values()):
        _stack(axes, position, by_kind, longest)
    axes.set_yticks(range(len(counts)), [shorten(name, _LONGEST_NAME) for name in counts])
    axes.set_ylim(len(counts) - 0.4, -0.6)
    axes.set_xlim(0, 1.08 * longest)
    axes.set_xlabel("errors at the confidence of the counts")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=INK, alpha=0.13, linewidth=0.8)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(KINDS))
    return figure


def _stack(axes: Axes, position: int, by_kind: Mapping[ErrorKind, int], longest: float) -> None:
    """Draw one bar: its segments in the order of the kinds, and its total at the end."""
    left = 0
    for kind in KINDS:
        wide = by_kind[kind]
        label = kind if position == 0 else None
        axes.barh(position, wide, 0.68, left=left, color=_COLORS[kind], label=label)
        if wide >= _READABLE * longest:
            axes.text(
                left + wide / 2, position, f"{wide:.0f}", ha="center", va="center", color=_ON_COLOR
            )
        left += wide
    axes.annotate(
        f"{left:.0f}", (left, position), xytext=(6, 0), textcoords="offset points", va="center"
    )
