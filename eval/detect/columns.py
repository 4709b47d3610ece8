"""The columns of the table of scores, and the table as plain text for a terminal.

Percent and points appear only here and in the report, which uses the same columns, so that every
place shows the same digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from eval.detect.model import TableRow, conditions, sort_rows
from eval.report.tables import (
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
)
from eval.scores.score import Score

__all__ = ["COLUMNS", "Column", "format_change", "format_table", "number_column", "used_columns"]

_LONGEST_NAME = 32
_SHORTEST_NAME = 14
_GAP = "  "


@dataclass(frozen=True)
class Column:
    """One column of the table of scores.

    Attributes:
        key: Its number's name in metrics.json, of several the first one's.
        title: The short heading.
        help: What the numbers are, for the legend of the report.
        values: Takes from a row what the column shows; it is defined where one of these is.
        text: Formats the cell of a row.
        rank: Importance. 0 is never dropped; of the others the highest goes first.
    """

    key: str
    title: str
    help: str
    values: Callable[[TableRow], Sequence[float | None]]
    text: Callable[[TableRow], str]
    rank: int = 0


def format_change(change: Score) -> str:
    """Format a change of mAP with its 95 % interval, in points.

    >>> format_change(Score(0.05, 0.01, 0.09))
    '+5.0 [1.0, 9.0]'
    """
    return f"{format_points(change.value)} {format_interval(change.low, change.high)}".rstrip()


def _format_sizes(row: TableRow) -> str:
    sizes = (row.mean_ap_small, row.mean_ap_medium, row.mean_ap_large)
    return "/".join(map(format_percent, sizes))


def _format_outcomes(row: TableRow) -> str:
    return "/".join(map(format_count, (row.tp, row.fp, row.fn)))


def number_column(
    key: str,
    title: str,
    text: Callable[[object], str],
    value: Callable[[TableRow], float | None],
    *,
    rank: int = 0,
    about: str = "",
) -> Column:
    """Make a column of a single number.

    Args:
        key: Its name in metrics.json.
        title: The short heading.
        text: Formats the number.
        value: Takes it from a row.
        rank: See `Column`.
        about: What the number is.
    """
    return Column(key, title, about, lambda row: (value(row),), lambda row: text(value(row)), rank)


COLUMNS: tuple[Column, ...] = (
    number_column(
        "mAP", "mAP", format_percent, lambda row: row.mean_ap,
        rank=0, about="AP over IoU 0.50 to 0.95, mean over classes",
    ),
    Column(
        "delta_mAP",
        "Δ vs rainy [95 %]",
        "change of mAP in points with its 95 % bootstrap interval over images",
        lambda row: (row.change.value,),
        lambda row: format_change(row.change),
    ),
    Column(
        "delta_frame",
        "network − frame [95 %]",
        "mAP when derained at the detector's resolution minus mAP when derained at the frame's, "
        "in points with its 95 % bootstrap interval",
        lambda row: (row.place_change.value,),
        lambda row: format_change(row.place_change),
        2,
    ),
    number_column(
        "recovered", "recovered", format_share, lambda row: row.recovered,
        rank=1, about="share of the mAP taken by the rain: (derained − rainy) / (clean − rainy)",
    ),
    number_column(
        "mAP50", "mAP50", format_percent, lambda row: row.mean_ap50,
        rank=2, about="AP at IoU 0.50",
    ),
    number_column(
        "mAP75", "mAP75", format_percent, lambda row: row.mean_ap75,
        rank=7, about="AP at IoU 0.75",
    ),
    Column(
        "mAP_small",
        "AP s/m/l",
        "mAP of small (below 32×32 px), medium, and large (above 96×96 px) objects",
        lambda row: (row.mean_ap_small, row.mean_ap_medium, row.mean_ap_large),
        _format_sizes,
        9,
    ),
    number_column(
        "AR", "AR", format_percent, lambda row: row.mean_ar,
        rank=8, about="average recall",
    ),
    number_column(
        "psnr", "PSNR", format_db, lambda row: row.psnr,
        rank=5, about="dB against the clean image, 8-bit Y as in MATLAB",
    ),
    number_column(
        "ssim", "SSIM", format_ssim, lambda row: row.ssim,
        rank=6, about="against the clean image, 8-bit Y",
    ),
    Column(
        "tp",
        "TP/FP/FN",
        "correct, false and missed detections",
        lambda row: (row.tp, row.fp, row.fn),
        _format_outcomes,
        10,
    ),
    number_column(
        "ms_derain", "ms derain", format_ms, lambda row: row.ms_derain,
        rank=3, about="derainer's time per image",
    ),
    number_column(
        "ms_detect", "ms detect", format_ms, lambda row: row.ms_detect,
        rank=4, about="detector's time per image",
    ),
)  # fmt: skip
"""All columns, from left to right."""


def used_columns(rows: Iterable[TableRow], columns: Iterable[Column] = COLUMNS) -> list[Column]:
    """Return the columns that are defined for at least one row."""
    rows = list(rows)
    return [
        column
        for column in columns
        if any(number(value) is not None for row in rows for value in column.values(row))
    ]


def format_table(rows: Sequence[TableRow], width: int = 120) -> str:
    """Format rows as a plain text table for a terminal.

    Columns that no row defines are left out. When the table is wider than `width`, the least
    important columns go first, then long names are cut in their middle.

    Args:
        rows: The rows, in any order; see `sort_rows`.
        width: Characters per line; narrower than about 60 is not reached.

    Returns:
        Lines joined by newlines, without one at the end. Ends with a line on how to read it.
    """
    ordered = sort_rows(rows)
    columns = used_columns(ordered)
    names = _LONGEST_NAME
    lines = _layout(ordered, columns, names)
    while len(lines[0]) > width:
        least = max(columns, key=lambda column: column.rank, default=None)
        if least is not None and least.rank:
            columns.remove(least)
        elif names > _SHORTEST_NAME:
            names -= 1
        else:
            break
        lines = _layout(ordered, columns, names)
    return "\n".join([*lines, *_footnotes(ordered)])


def _layout(rows: Sequence[TableRow], columns: Sequence[Column], names: int) -> list[str]:
    """Align the cells: text to the left, numbers to the right. Every line is equally long."""
    head = [["input", *(column.title for column in columns)]]
    body = [[shorten(row.label, names), *(c.text(row) for c in columns)] for row in rows]
    cells = head + body
    if any(name != "all" for name in conditions(rows)):
        titles = ["condition", *(shorten(row.condition, names) for row in rows)]
        cells = [[title, *line] for title, line in zip(titles, cells, strict=True)]
    texts = len(cells[0]) - len(columns)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        _GAP.join(
            cell.ljust(wide) if index < texts else cell.rjust(wide)
            for index, (cell, wide) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _footnotes(rows: Sequence[TableRow]) -> list[str]:
    notes = ["AP, AR in percent; Δ in points of mAP with its 95 % interval"]
    if any(row.input == "derained_clean" for row in rows):
        notes.append("'X on clean': X applied to the clean images, Δ against clean, not rainy")
    return notes
