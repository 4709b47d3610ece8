"""Helpers for readers of annotations: JSON files, and strict parsing of numbers and boxes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from rainmer.errors import DatasetError

__all__ = ["as_number", "as_whole", "bbox_of_corners", "number_in_text", "read_json"]

_DECIMAL = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


def read_json(path: Path) -> object:
    """Read a JSON file, with or without a byte order mark.

    Raises:
        DatasetError: The file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"cannot read the annotations {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not valid JSON: {error}") from error


def as_number(value: object) -> float | None:
    """Return a finite number; None for anything else, such as True, "1", NaN or 10**400."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_whole(value: object) -> int | None:
    """Return a whole number of 64 bits given as 3, 3.0 or "3"; None for anything else."""
    match value:
        case bool():
            return None
        case str() if re.fullmatch(r"[0-9]{1,18}", value):
            return int(value)
        case int() | float() if abs(value) < 2**63 and value == int(value):
            return int(value)
    return None


def number_in_text(text: str | None) -> float | None:
    """Return the finite number in a text; None for anything else, such as "nan" or "1_0".

    Example:
        >>> number_in_text(" 12.5 "), number_in_text("inf"), number_in_text(None)
        (12.5, None, None)
    """
    stripped = (text or "").strip()
    return as_number(float(stripped)) if _DECIMAL.fullmatch(stripped) else None


def bbox_of_corners(
    left: float | None, top: float | None, right: float | None, bottom: float | None
) -> list[float] | None:
    """Return left, top, width, height of a box given by corners; None if it covers nothing.

    Example:
        >>> bbox_of_corners(2.0, 3.0, 12.0, 8.0)
        [2.0, 3.0, 10.0, 5.0]
    """
    if left is None or top is None or right is None or bottom is None:
        return None
    width, height = right - left, bottom - top
    if width <= 0 or height <= 0 or not math.isfinite(width * height):
        return None
    return [left, top, width, height]
