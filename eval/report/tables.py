"""Numbers as text, the same digits in every table, plot and report.

Numbers are fractions 0..1, milliseconds or decibels, or None where undefined. Only the texts made
here are in percent and points.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from eval.scores.score import Score
from rainmer.console import as_printed

__all__ = [
    "CONTROLS",
    "NOTHING",
    "UNDEFINED",
    "align_table",
    "format_count",
    "format_db",
    "format_end",
    "format_fixed",
    "format_interval",
    "format_ms",
    "format_percent",
    "format_points",
    "format_share",
    "format_ssim",
    "format_with_interval",
    "number",
    "shorten",
    "typographic",
]

UNDEFINED = "–"
"""What stands where a number is undefined."""

NOTHING = 1e-9
"""An end of an interval that is closer to zero than this is zero: sums of fractions round."""

CONTROLS = ("none", "median")
"""The identity and the median filter: what a real derainer has to beat."""


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


def format_end(value: float, digits: int) -> str:
    """Format an end of an interval: with more digits where it would wrongly read as zero.

    Whether an interval includes zero decides what is said about it, so its text has to show that.

    >>> format_end(1.26, 1), format_end(0.034, 1), format_end(-0.0004, 1), format_end(0.0, 1)
    ('1.3', '0.03', '-0.0004', '0.0')
    """
    size = abs(value)
    if size > 100 * NOTHING and not round(value, digits):
        digits = -math.floor(math.log10(size))
    return format_fixed(value, digits)


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
    return f"[{format_end(100 * ends[0], 1)}, {format_end(100 * ends[1], 1)}]"


def format_with_interval(score: Score, digits: int, *, factor: float = 1.0, sign: str = "") -> str:
    """Format a number with its interval, as far as they are defined.

    >>> format_with_interval(Score(0.187, 0.1, 0.25), 1, factor=100, sign="+")
    '+18.7 [10.0, 25.0]'
    """
    value, low, high = map(number, (score.value, score.low, score.high))
    if value is None:
        return UNDEFINED
    text = format_fixed(factor * value, digits, sign)
    if low is None or high is None:
        return text
    return f"{text} [{format_end(factor * low, digits)}, {format_end(factor * high, digits)}]"


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
    # Signs that stdout lacks are longer there, and names may hold line breaks.
    cells = ([as_printed(" ".join(cell.split())) for cell in line] for line in (head, *lines))
    head, *lines = cells
    # As a head, it would get columns two characters wider than its titles.
    text = tabulate([head, *lines], tablefmt="plain", disable_numparse=True, colalign=align)
    first, _, others = text.partition("\n")
    return f"{first}\n{'-' * len(first)}\n{others}".rstrip()
