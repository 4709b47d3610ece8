"""The part of the report on errors by kind: a chart, and tables of errors and changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.detect.diagnosis import Diagnosis
from eval.detect.model import ChangeRow, ErrorRow, condition_title, conditions, sort_rows
from eval.report.figures import WIDTH, draw_chart, name_bars, short, spread_legend
from eval.report.parts import Cell, Chart, Group, Line, Table, flat_table
from eval.report.tables import format_count, format_points
from eval.scores.coco import AREAS
from eval.scores.errors import EVERY, KINDS, ErrorKind
from rainmer.figures import styled

__all__ = ["BreakdownSection", "breakdown_section", "error_bars"]

_COLORS: dict[ErrorKind, str] = {
    "classification": "#9db8ff",
    "localisation": "#8578f5",
    "both": "#c4cad1",
    "duplicate": "#63d37d",
    "background": "#c87f2e",
    "missed": "#cb79ac",
}
_ROW_HEIGHT = 0.34
_ON_COLOR = "#10181f"  # stays dark on a dark page, for the segments keep their colours
_READABLE = 0.035  # of the axis: a narrower segment has no room for its number


@dataclass(frozen=True, kw_only=True)
class BreakdownSection:
    """What `breakdown.html` shows.

    Attributes:
        main: The condition of the chart and of the table by size.
        chart: Number of errors by kind.
        costs: What AP50 gains without the errors of a kind.
        counts: Numbers of errors.
        sizes: Both by size of the objects.
        changes: Objects found and lost; None without any row to compare.
    """

    main: str
    chart: Chart
    costs: Table
    counts: Table
    sizes: Table
    changes: Table | None


def breakdown_section(diagnosis: Diagnosis, part: str = "") -> BreakdownSection | None:
    """Prepare the section for the template `breakdown.html`; None without errors to show.

    Args:
        diagnosis: Of all rows of a comparison.
        part: What was measured, if not the whole set.
    """
    rows = [row for row in sort_rows(diagnosis.errors) if row.class_name == EVERY]
    if not rows:
        return None
    main = conditions(rows)[0]
    by_condition = {
        condition_title(name, part): [row for row in _of_condition(rows, name) if row.size == EVERY]
        for name in conditions(rows)
    }
    by_size = {
        f"{size} objects": [row for row in _of_condition(rows, main) if row.size == size]
        for size in AREAS[1:]
    }
    chart = draw_chart(
        partial(error_bars, rows, main),
        "errors",
        "Number of errors of each kind, row by row",
        "False detections and missed objects of every row, and their sum.",
    )
    assert chart is not None
    return BreakdownSection(
        main=main,
        chart=chart,
        costs=_kind_table(
            "What AP50 gains if all errors of one kind are corrected, in points",
            by_condition,
            _cost,
        ),
        counts=_kind_table("Errors at the confidence of the counts", by_condition, _count),
        sizes=_kind_table(
            "By size of object: errors, and what AP50 of that size gains in points",
            by_size,
            lambda row: f"{_count(row)} ({_cost(row)})",
        ),
        changes=_change_table(diagnosis.changes),
    )


def _of_condition(rows: Sequence[ErrorRow], condition: str) -> list[ErrorRow]:
    return [row for row in rows if row.condition == condition]


def _kind_table(
    caption: str, groups: Mapping[str, Sequence[ErrorRow]], text: Callable[[ErrorRow], str]
) -> Table:
    """Return a table with a column for each kind of error, without groups that have no rows."""
    shown = []
    for title, rows in groups.items():
        lines: dict[str, dict[ErrorKind, Cell]] = {}
        for row in rows:
            lines.setdefault(row.label, {})[row.kind] = Cell(text(row))
        if lines:
            members = [
                Line([label], [cells[kind] for kind in KINDS]) for label, cells in lines.items()
            ]
            shown.append(Group(members, title if len(groups) > 1 else ""))
    return Table(about=caption, texts=["input"], numbers=KINDS, groups=shown, caption=caption)


def _count(row: ErrorRow) -> str:
    return format_count(row.count)


def _cost(row: ErrorRow) -> str:
    return format_points(row.gain_ap50)


def _change_table(rows: Sequence[ChangeRow]) -> Table | None:
    lines = []
    for row in sort_rows(rows):
        if row.class_name == row.size == EVERY:
            counts = (row.found, row.lost, row.background_gained, row.background_removed)
            cells = [Cell(format_count(count)) for count in counts]
            lines.append(Line([row.condition, row.label], cells))
    if not lines:
        return None
    return flat_table(
        "What changed, object by object, against rainy (“on clean”: against clean)",
        ["condition", "input"],
        ["found", "lost", "background gained", "background removed"],
        lines,
    )


@styled
def error_bars(rows: Sequence[ErrorRow], condition: str, width: float = WIDTH) -> Figure:
    """Draw the number of errors of each row of a condition as bars, stacked by kind.

    Args:
        rows: `errors` of a diagnosis, at least one of the condition.
        condition: Which images.
        width: Of the figure in inches.
    """
    counts: dict[str, dict[ErrorKind, int]] = {}
    for row in sort_rows(_of_condition(rows, condition)):
        if row.class_name == row.size == EVERY:
            counts.setdefault(row.label, {})[row.kind] = row.count
    figure = Figure(figsize=(width, _ROW_HEIGHT * len(counts) + 1.1), layout="constrained")
    axes = figure.add_subplot()
    longest = max((sum(by_kind.values()) for by_kind in counts.values()), default=0) or 1
    for position, by_kind in enumerate(counts.values()):
        _stack(axes, position, by_kind, longest, _READABLE * WIDTH / width)
    axes.set_xlim(0, (1 + 0.08 * WIDTH / width) * longest)
    axes.set_xlabel("errors at the confidence of the counts")
    name_bars(axes, [short(label, width) for label in counts])
    handles, _ = axes.get_legend_handles_labels()
    spread_legend(figure, handles, width, len(KINDS))
    return figure


def _stack(
    axes: Axes, position: int, by_kind: Mapping[ErrorKind, int], longest: float, readable: float
) -> None:
    """Draw one bar: its segments in the order of the kinds, and its total at the end."""
    left = 0
    for kind in KINDS:
        wide = by_kind[kind]
        label = kind if position == 0 else None
        axes.barh(position, wide, 0.68, left=left, color=_COLORS[kind], label=label)
        if wide >= readable * longest:
            axes.text(
                left + wide / 2, position, f"{wide:.0f}", ha="center", va="center", color=_ON_COLOR
            )
        left += wide
    axes.annotate(
        f"{left:.0f}", (left, position), xytext=(6, 0), textcoords="offset points", va="center"
    )
