"""Numbers as text, the same digits in every table, plot and report.

Numbers come as fractions 0..1, milliseconds and decibels, and None where one is undefined. Percent
and points appear only in what is made here.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

__all__ = [
    "CONTROLS",
    "UNDEFINED",
    "Row",
    "conditions",
    "format_count",
    "format_db",
    "format_interval",
    "format_ms",
    "format_percent",
    "format_points",
    "format_share",
    "format_ssim",
    "number",
    "shorten",
    "typographic",
]

Row: TypeAlias = Mapping[str, object]
"""One flat row of results."""

UNDEFINED = "–"
"""What stands where a number is undefined."""

CONTROLS = frozenset({"none", "median"})
"""Derainers that are no derainers: what a real one has to beat."""


def number(value: object) -> float | None:
    """Return a finite number as a float, and None for everything else (None, NaN, infinity)."""
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    return None


def _fixed(value: float, digits: int, sign: str = "") -> str:
    """Format with a fixed number of digits, and without the sign of a zero."""
    rounded = round(value, digits)
    return f"{rounded:{sign}.{digits}f}" if rounded else f"{0.0:.{digits}f}"


def format_percent(value: object) -> str:
    """Format a fraction 0..1 as percent with one decimal, without the sign of percent.

    >>> format_percent(0.3894), format_percent(None)
    ('38.9', '–')
    """
    found = number(value)
    return UNDEFINED if found is None else _fixed(100 * found, 1)


def format_points(value: object) -> str:
    """Format a difference of two fractions as signed points of percent.

    >>> format_points(0.187), format_points(-0.034), format_points(-0.0001)
    ('+18.7', '-3.4', '0.0')
    """
    found = number(value)
    return UNDEFINED if found is None else _fixed(100 * found, 1, "+")


def format_interval(low: object, high: object) -> str:
    """Format the ends of an interval of differences in points; empty when an end is undefined.

    >>> format_interval(-0.012, 0.018)
    '[-1.2, 1.8]'
    """
    ends = number(low), number(high)
    if ends[0] is None or ends[1] is None:
        return ""
    return f"[{_fixed(100 * ends[0], 1)}, {_fixed(100 * ends[1], 1)}]"


def format_share(value: object) -> str:
    """Format a fraction as whole percent with its sign: what is recovered needs no decimal.

    >>> format_share(0.528)
    '53 %'
    """
    found = number(value)
    return UNDEFINED if found is None else f"{_fixed(100 * found, 0)} %"


def format_db(value: object) -> str:
    """Format decibels with two decimals."""
    found = number(value)
    return UNDEFINED if found is None else _fixed(found, 2)


def format_ssim(value: object) -> str:
    """Format a structural similarity with four decimals, as papers print it."""
    found = number(value)
    return UNDEFINED if found is None else _fixed(found, 4)


def format_ms(value: object) -> str:
    """Format milliseconds: one decimal below 100, none above."""
    found = number(value)
    return UNDEFINED if found is None else _fixed(found, 1 if found < 99.95 else 0)


def format_count(value: object) -> str:
    """Format a count of images, boxes or detections."""
    found = number(value)
    return UNDEFINED if found is None else f"{found:.0f}"


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


def conditions(rows: Iterable[Row]) -> list[str]:
    """Return the names of the conditions: `all` first, the others in the order of the rows."""
    names = dict.fromkeys(str(row.get("condition")) for row in rows)
    return sorted(names, key=lambda name: name != "all")
