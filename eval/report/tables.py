"""Result rows as text: number formats, labels and order of rows, and the table of the terminal.

A row is one entry of `rows` in metrics.json: fractions 0..1, milliseconds, decibels, and None where
a number is undefined. Percent and points appear only here, and the HTML report uses these formats
too, so that every place shows the same digits.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tabulate import tabulate

from eval.scores.score import Score

__all__ = [
    "COLUMNS",
    "CONTROLS",
    "UNDEFINED",
    "Column",
    "Row",
    "align_table",
    "conditions",
    "find_row",
    "format_count",
    "format_db",
    "format_delta",
    "format_fixed",
    "format_interval",
    "format_ms",
    "format_percent",
    "format_place",
    "format_points",
    "format_score",
    "format_share",
    "format_ssim",
    "format_table",
    "is_control",
    "number",
    "row_label",
    "shorten",
    "sort_rows",
    "typographic",
    "used_columns",
]

Row: TypeAlias = Mapping[str, object]
"""One flat row of metrics.json, or one row of the per-class results."""

UNDEFINED = "–"
"""What stands where a number is undefined."""

CONTROLS = ("none", "median")
"""The identity and the median filter: what a real derainer has to beat."""

_INPUT_ORDER = ("rainy", "derained", "clean", "derained_clean")
_LONGEST_NAME = 32
_SHORTEST_NAME = 14
_GAP = "  "


def number(value: object) -> float | None:
    """Return a finite number as a float, and None for everything else (None, NaN, infinity)."""
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    return None


def format_fixed(value: float, digits: int, sign: str = "") -> str:
    """Format with a fixed number of digits, and without the sign of a zero.

    Args:
        value: A finite number.
        digits: Number of decimals.
        sign: `+` shows the sign of numbers above zero too.
    """
    rounded = round(value, digits)
    return f"{rounded:{sign}.{digits}f}" if rounded else f"{0.0:.{digits}f}"


def format_percent(value: object) -> str:
    """Format a fraction 0..1 as percent with one decimal, without the sign of percent.

    >>> format_percent(0.3894), format_percent(None)
    ('38.9', '–')
    """
    finite = number(value)
    return UNDEFINED if finite is None else format_fixed(100 * finite, 1)


def format_points(value: object) -> str:
    """Format a difference of two fractions as signed points of percent.

    >>> format_points(0.187), format_points(-0.034), format_points(-0.0001)
    ('+18.7', '-3.4', '0.0')
    """
    finite = number(value)
    return UNDEFINED if finite is None else format_fixed(100 * finite, 1, "+")


def format_interval(low: object, high: object) -> str:
    """Format the ends of an interval of differences in points; empty when an end is undefined.

    >>> format_interval(-0.012, 0.018)
    '[-1.2, 1.8]'
    """
    ends = number(low), number(high)
    if ends[0] is None or ends[1] is None:
        return ""
    return f"[{format_fixed(100 * ends[0], 1)}, {format_fixed(100 * ends[1], 1)}]"


def format_score(score: Score, digits: int, *, factor: float = 1.0, sign: str = "") -> str:
    """Format a number with its interval, as far as they are defined.

    >>> format_score(Score(0.187, 0.1, 0.25), 1, factor=100, sign="+")
    '+18.7 [10.0, 25.0]'
    """
    if score.value is None:
        return UNDEFINED
    text = format_fixed(factor * score.value, digits, sign)
    if score.low is None or score.high is None:
        return text
    low, high = (format_fixed(factor * end, digits) for end in (score.low, score.high))
    return f"{text} [{low}, {high}]"


def format_delta(row: Row) -> str:
    """Format the change of mAP of a row with its 95 % interval, in points."""
    interval = format_interval(row.get("ci_low"), row.get("ci_high"))
    return f"{format_points(row.get('delta_mAP'))} {interval}".rstrip()


def format_place(row: Row) -> str:
    """Format what deraining at the detector's resolution changes against the frame's, in points."""
    interval = format_interval(row.get("frame_ci_low"), row.get("frame_ci_high"))
    return f"{format_points(row.get('delta_frame'))} {interval}".rstrip()


def format_share(value: object) -> str:
    """Format a fraction as whole percent with its sign: what is recovered needs no decimal.

    >>> format_share(0.528)
    '53 %'
    """
    finite = number(value)
    return UNDEFINED if finite is None else f"{format_fixed(100 * finite, 0)} %"


def format_db(value: object) -> str:
    """Format decibels with two decimals."""
    finite = number(value)
    return UNDEFINED if finite is None else format_fixed(finite, 2)


def format_ssim(value: object) -> str:
    """Format a structural similarity with four decimals, as papers print it."""
    finite = number(value)
    return UNDEFINED if finite is None else format_fixed(finite, 4)


def format_ms(value: object) -> str:
    """Format milliseconds: one decimal below 100, none above."""
    finite = number(value)
    return UNDEFINED if finite is None else format_fixed(finite, 1 if finite < 99.95 else 0)


def format_count(value: object) -> str:
    """Format a count of images, boxes or detections."""
    finite = number(value)
    return UNDEFINED if finite is None else f"{finite:.0f}"


def typographic(text: str) -> str:
    """Turn hyphens before numbers into minus signs, for print; terminals keep what one can type.

    >>> typographic("-0.8 points [-3.3, 1.9] with yolo-11")
    '−0.8 points [−3.3, 1.9] with yolo-11'
    """
    return re.sub(r"(?<![\w.:/-])-(?=\d)", "−", text)


def _format_sizes(row: Row) -> str:
    return "/".join(format_percent(row.get(f"mAP_{size}")) for size in ("small", "medium", "large"))


def _format_outcomes(row: Row) -> str:
    return "/".join(format_count(row.get(key)) for key in ("tp", "fp", "fn"))


def is_control(row: Row) -> bool:
    """Tell whether a row's derainer is a control (identity or median filter), wherever it stands.

    >>> is_control({"derainer": "union-network-median"})
    True
    """
    name = str(row.get("derainer")).removeprefix("union-").removeprefix("network-")
    return name in CONTROLS


def row_label(row: Row) -> str:
    """Name a row as a reader thinks of it: `rainy`, the derainer, `clean`, `X on clean`."""
    name = str(row.get("derainer") or "")
    if row.get("input") == "derained":
        return name
    if row.get("input") == "derained_clean":
        return f"{name} on clean"
    return str(row.get("input"))


def shorten(text: str, limit: int) -> str:
    """Cut the middle out of a long text: both ends of a name tell more than its start.

    >>> shorten("prenet:weights/rain100h.pth", 15)
    'prenet:…00h.pth'
    """
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def align_table(head: Sequence[str], lines: Iterable[Sequence[str]], texts: int) -> str:
    """Align a table for a terminal: columns of text to the left, numbers to the right.

    Args:
        head: The titles of the columns.
        lines: A cell for each column.
        texts: How many columns hold text; these come first.

    >>> print(align_table(["name", "n"], [["a", "10"], ["long name", "9"]], 1))
    name        n
    -------------
    a          10
    long name   9
    """
    align = ["left"] * texts + ["right"] * (len(head) - texts)
    # As a head, it would get columns two characters wider than its titles.
    text = tabulate([head, *lines], tablefmt="plain", disable_numparse=True, colalign=align)
    first, _, others = text.partition("\n")
    return f"{first}\n{'-' * len(first)}\n{others}".rstrip()


def conditions(rows: Iterable[Row]) -> list[str]:
    """Return the names of the conditions: `all` first, the others in the order of the rows."""
    names = dict.fromkeys(str(row.get("condition")) for row in rows)
    return sorted(names, key=lambda name: name != "all")


def sort_rows(rows: Sequence[Row]) -> list[Row]:
    """Order rows for reading: by condition, then rainy, controls, derainers, clean, on clean."""
    order = {name: index for index, name in enumerate(conditions(rows))}
    return sorted(
        rows,
        key=lambda row: (
            order[str(row.get("condition"))],
            _INPUT_ORDER.index(str(row.get("input"))),
            not is_control(row),
        ),
    )


def find_row(rows: Iterable[Row], condition: str, kind: str, derainer: str = "") -> Row | None:
    """Return the row of a condition, an input (`rainy`, ...) and a derainer, or None."""
    for row in rows:
        same = row.get("condition") == condition and row.get("input") == kind
        if same and (row.get("derainer") or "") == derainer:
            return row
    return None


@dataclass(frozen=True)
class Column:
    """One column of the results.

    Attributes:
        keys: What it shows of a row; the column is defined where one of these is.
        title: The short heading.
        help: What the numbers are, for the legend of the report.
        text: Formats the cell of a row.
        rank: Importance. 0 is never dropped; of the others the highest goes first.
    """

    keys: tuple[str, ...]
    title: str
    help: str
    text: Callable[[Row], str]
    rank: int = 0


def _column(
    key: str, title: str, text: Callable[[object], str], *, rank: int, about: str
) -> Column:
    return Column((key,), title, about, lambda row: text(row.get(key)), rank)


COLUMNS: tuple[Column, ...] = (
    _column(
        "mAP", "mAP", format_percent, rank=0, about="AP over IoU 0.50 to 0.95, mean over classes"
    ),
    Column(
        ("delta_mAP",),
        "Δ vs rainy [95 %]",
        "change of mAP in points with its 95 % bootstrap interval over images",
        format_delta,
    ),
    Column(
        ("delta_frame",),
        "network − frame [95 %]",
        "mAP when derained at the detector's resolution minus mAP when derained at the frame's, "
        "in points with its 95 % bootstrap interval",
        format_place,
        2,
    ),
    _column(
        "recovered",
        "recovered",
        format_share,
        rank=1,
        about="share of the mAP taken by the rain: (derained − rainy) / (clean − rainy)",
    ),
    _column("mAP50", "mAP50", format_percent, rank=2, about="AP at IoU 0.50"),
    _column("mAP75", "mAP75", format_percent, rank=7, about="AP at IoU 0.75"),
    Column(
        ("mAP_small", "mAP_medium", "mAP_large"),
        "AP s/m/l",
        "mAP of small (below 32×32 px), medium, and large (above 96×96 px) objects",
        _format_sizes,
        9,
    ),
    _column("AR", "AR", format_percent, rank=8, about="average recall"),
    _column(
        "psnr", "PSNR", format_db, rank=5, about="dB against the clean image, 8-bit Y as in MATLAB"
    ),
    _column("ssim", "SSIM", format_ssim, rank=6, about="against the clean image, 8-bit Y"),
    Column(
        ("tp", "fp", "fn"),
        "TP/FP/FN",
        "correct, false and missed detections",
        _format_outcomes,
        10,
    ),
    _column("ms_derain", "ms derain", format_ms, rank=3, about="derainer's time per image"),
    _column("ms_detect", "ms detect", format_ms, rank=4, about="detector's time per image"),
)


def used_columns(rows: Iterable[Row], columns: Iterable[Column] = COLUMNS) -> list[Column]:
    """Return the columns that are defined for at least one row."""
    rows = list(rows)
    return [
        column
        for column in columns
        if any(number(row.get(key)) is not None for row in rows for key in column.keys)
    ]


def format_table(rows: Sequence[Row], width: int = 120) -> str:
    """Format result rows as a plain text table for a terminal.

    Columns that no row defines are left out. When the table is wider than `width`, the least
    important columns go first, then long names are cut in their middle.

    Args:
        rows: Rows of metrics.json, in any order; see `sort_rows`.
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


def _layout(rows: Sequence[Row], columns: Sequence[Column], names: int) -> list[str]:
    """Align the cells: text to the left, numbers to the right. Every line is equally long."""
    head = [["input", *(column.title for column in columns)]]
    body = [[shorten(row_label(row), names), *(c.text(row) for c in columns)] for row in rows]
    cells = head + body
    if any(name != "all" for name in conditions(rows)):
        titles = ["condition", *(shorten(str(row.get("condition")), names) for row in rows)]
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


def _footnotes(rows: Sequence[Row]) -> list[str]:
    notes = ["AP, AR in percent; Δ in points of mAP with its 95 % interval"]
    if any(row.get("input") == "derained_clean" for row in rows):
        notes.append("'X on clean': X applied to the clean images, Δ against clean, not rainy")
    return notes
