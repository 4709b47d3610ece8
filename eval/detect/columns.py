"""The columns of the table of scores, and the table as plain text for a terminal.

Percent and points appear only here and in the report, which uses the same columns, so that every
place shows the same digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from eval.detect.model import TableRow, sort_rows
from eval.report.tables import (
    align_table,
    format_count,
    format_db,
    format_percent,
    format_share,
    format_ssim,
    format_with_interval,
    number,
    shorten,
)
from eval.report.timing import EARLIER, TimedOn, format_rate, format_timing
from eval.scores.score import Score
from eval.scores.timing import Timing
from eval.sets import ALL

__all__ = [
    "COLUMNS",
    "Column",
    "change_column",
    "cost_lines",
    "format_change",
    "format_table",
    "number_column",
    "used_columns",
]

_LONGEST_NAME = 32
_SHORTEST_NAME = 14


@dataclass(frozen=True)
class Column:
    """One column of the table of scores.

    Attributes:
        key: Name of its number in metrics.json; of the first of several numbers.
        title: The short heading.
        help: What the numbers are, for the legend of the report.
        values: Returns the numbers that the column shows of a row; one of them must be defined.
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
    return format_with_interval(change, 1, factor=100, sign="+")


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


def change_column(key: str, change: Callable[[TableRow], Score]) -> Column:
    """Make a column of a change in points with its interval; see `number_column`."""
    title = "Δ [95 %]"
    return Column(key, title, "", lambda r: (change(r).value,), lambda r: format_change(change(r)))


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
        "AP_by_boxes", "AP by boxes", format_percent, lambda row: row.ap_by_boxes,
        rank=8, about="AP weighted by each class's boxes",
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
        "share_derained", "derained", format_share, lambda row: row.share_derained,
        rank=1, about="share of the images that the gate derained; all others passed as they are",
    ),
    Column(
        "ms_derain_median",
        "ms derain",
        "derainer's median time for an image; of a gate the mean over all, with its meter",
        lambda row: (row.cost.derain.ms,),
        lambda row: format_timing(row.cost.derain),
        3,
    ),
    Column(
        "images_per_s",
        "images/s",
        "images a second, derainer and detector one after the other",
        lambda row: (row.cost.of(row.derainer).rate,),
        lambda row: format_rate(row.cost.of(row.derainer)),
        4,
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
    longest = _LONGEST_NAME
    text = _layout(ordered, columns, longest)
    while text.index("\n") > width:
        least = max(columns, key=lambda column: column.rank, default=None)
        if least is not None and least.rank:
            columns.remove(least)
        elif longest > _SHORTEST_NAME:
            longest -= 1
        else:
            break
        text = _layout(ordered, columns, longest)
    return "\n".join([text, *_footnotes(ordered)])


def cost_lines(rows: Sequence[TableRow], timed_on: TimedOn | None) -> list[str]:
    """Say what the times of a table hold for, and the detector's; empty without any."""
    rainy = next((row.cost.detect for row in rows if row.input == "rainy"), Timing())
    lines = []
    if rainy.ms is not None:
        place = f" on {timed_on.text}" if timed_on else ""
        lines.append(
            f"medians for an image{place}; the detector takes {format_timing(rainy)} ms in every "
            f"row: {format_rate(rainy)} images/s without a derainer"
        )
    if any(row.cost.of(row.derainer).earlier for row in rows):
        lines.append(EARLIER)
    return lines


def _layout(rows: Sequence[TableRow], columns: Sequence[Column], longest: int) -> str:
    """Align the cells, names cut to a length; with the conditions where there are several."""
    head = ["input", *(column.title for column in columns)]
    lines = [[shorten(row.label, longest), *(c.text(row) for c in columns)] for row in rows]
    if all(row.condition == ALL for row in rows):
        return align_table(head, lines, texts=1)
    lines = [
        [shorten(row.condition, longest), *line] for row, line in zip(rows, lines, strict=True)
    ]
    return align_table(["condition", *head], lines, texts=2)


def _footnotes(rows: Sequence[TableRow]) -> list[str]:
    notes = ["AP, AR in percent; Δ in points of mAP with its 95 % interval"]
    if any(row.input == "derained_clean" for row in rows):
        notes.append("'X on clean': X applied to the clean images, Δ against clean, not rainy")
    return notes
